"""Which exporter writes the graphs of a model: our own for what the table names, else Optimum's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError
from sparktasks.export.source import Source
from sparktasks.export.tasks import (
    CONTINUES,
    ENCODES,
    ENCODES_ALONE,
    LABELS_TEXTS,
    LABELS_TOKENS,
    Form,
    load_network,
)
from sparktasks.runtime.blockwise import LARGE

Exporter = Callable[[Source, Form, Any, Path], None]
"""Writes the ONNX files of a model, in a form, into a folder; the third argument is its tokenizer."""

_OPSET = 18

# What the table's graphs of encoders are traced with; other texts have other lengths.
_TRACED_TEXT = "The export is traced with this text, and tried with others."


def export_with_optimum(source: Source, form: Form, tokenizer: Any, folder: Path, **options: Any) -> None:
    """Export an architecture that Optimum knows, or that the options describe to it."""
    from optimum.exporters.onnx import main_export

    # A decoder that labels texts looks for the last token that is no padding. Without a padding token every token
    # counts, and -1 is no token.
    pad = -1 if form is LABELS_TEXTS and tokenizer.pad_token_id is None else None
    main_export(
        str(source.folder),
        output=folder,
        task=form.optimum,
        library_name="transformers",
        framework="pt",
        pad_token_id=pad,
        local_files_only=True,
        trust_remote_code=False,
        do_validation=False,  # it would only warn, and try one shape
        **options,
    )


def export_like_llama(source: Source, form: Form, tokenizer: Any, folder: Path) -> None:
    """Export a decoder whose inputs, outputs and cache are those of Llama."""
    from optimum.exporters.onnx.model_configs import LlamaOnnxConfig
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
    described = LlamaOnnxConfig(config, task="text-generation", use_past=True, use_past_in_inputs=True)
    export_with_optimum(source, form, tokenizer, folder, custom_onnx_configs={"model": described})


def export_encoder(source: Source, form: Form, tokenizer: Any, folder: Path) -> None:
    """Export an encoder by tracing it, with Optimum's names for inputs and outputs."""
    import torch

    network = load_network(source, form)
    output = "last_hidden_state" if form in (ENCODES, ENCODES_ALONE) else "logits"
    inputs = _traced_inputs(network, tokenizer)
    tokens = {0: "batch_size", 1: "sequence_length"}
    axes = dict.fromkeys((*inputs, output), tokens)
    if form is LABELS_TEXTS:
        axes[output] = {0: "batch_size"}

    class FirstOutput(torch.nn.Module):  # type: ignore[misc]
        """The network, called with its inputs by position."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *values: Any) -> Any:
            """Return the first output."""
            return self.network(**dict(zip(inputs, values, strict=True)))[0]

    traced = folder / "traced"
    traced.mkdir()
    torch.onnx.export(
        FirstOutput().eval(),  # the wrapper too: else it would be traced in training mode, with dropout
        tuple(inputs.values()),
        str(traced / "model.onnx"),  # beside a Path the tracer writes no weights, and fails above 2 GiB
        input_names=list(inputs),
        output_names=[output],
        dynamic_axes=axes,
        opset_version=_OPSET,
        dynamo=False,
    )
    _save(traced / "model.onnx", folder / "model.onnx")


def _save(traced: Path, target: Path) -> None:
    """Write a traced graph with its weights in it, or in one file beside it; the tracer writes a file for each."""
    import onnx

    model = onnx.load(traced)
    is_large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGE
    onnx.save(model, target, save_as_external_data=is_large, location=f"{target.name}_data")


def _traced_inputs(network: Any, tokenizer: Any) -> dict[str, Any]:
    """Return two rows of tokens, of which the second has padding: without any, some networks drop the mask."""
    import torch

    known = inspect.signature(network.forward).parameters
    encoded = tokenizer([_TRACED_TEXT] * 2, return_tensors="pt")
    ids = encoded["input_ids"]
    ids[1] = ids[1].flip(0)
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0
    rows = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in tokenizer.model_input_names:
        rows["token_type_ids"] = torch.zeros_like(ids)
    return {name: values for name, values in rows.items() if name in known}


_ENCODERS = ("ernie", "luke", "nezha", "roberta-prelayernorm", "xlm-roberta-xl", "xlnet")
_LIKE_LLAMA = ("ernie4_5", "glm4", "hunyuan_v1_dense", "olmo3", "seed_oss", "starcoder2")

EXPORTERS: dict[tuple[str, Form], Exporter] = {
    **dict.fromkeys(product(_ENCODERS, (LABELS_TEXTS, LABELS_TOKENS, ENCODES)), export_encoder),
    **dict.fromkeys(product(("mt5", "t5", "umt5"), (ENCODES_ALONE,)), export_encoder),
    **dict.fromkeys(product(_LIKE_LLAMA, (CONTINUES,)), export_like_llama),
}
"""Exporters for architectures that Optimum lacks or gets wrong, by config.json's model_type and the form."""


def find_exporter(source: Source, form: Form) -> Exporter:
    """Return the exporter of a model; where there is none, `BundleError` names the architectures that have one."""
    own = EXPORTERS.get((source.model_type, form))
    if own is not None:
        return own
    if source.model_type in _optimum_types(form):
        return export_with_optimum
    possible = sorted(_possible_types(form))
    raise BundleError(
        f"{source.name}: models of the architecture {source.model_type!r} cannot be exported for "
        f"{form.optimum.removesuffix('-with-past')}, neither by Optimum nor by sparktasks. "
        f"These can be: {', '.join(possible)}"
    )


def _optimum_types(form: Form) -> set[str]:
    import optimum.exporters.onnx.model_configs  # noqa: F401  (it fills the table that is read here)
    from optimum.exporters.tasks import TasksManager

    return set(TasksManager.get_supported_model_type_for_task(form.optimum, "onnx"))


def _possible_types(form: Form) -> set[str]:
    """Return the architectures that can be exported in a form, of those that read text."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    own = {model_type for model_type, own_form in EXPORTERS if own_form is form}
    return own | _optimum_types(form).intersection(TOKENIZER_MAPPING_NAMES)
