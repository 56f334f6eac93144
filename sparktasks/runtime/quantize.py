"""Making an int8 bundle, and measuring how far it agrees with the one it was made from."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparktasks.errors import BundleError, MissingDependency, listed
from sparktasks.runtime.bundle import Bundle, check_tokenizer, open_bundle
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths

_LARGE = 1_500_000_000  # protobuf ends at 2 GiB
_CARDS = ("README.md",)
_QUANTIZED = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits", "QLinearMatMul"})


@dataclass(frozen=True)
class Agreement:
    """How a model's outputs compare with those of the one it was made from, over some texts.

    ``cosine`` and ``lowest`` are the mean and the lowest cosine of the texts' outputs, all tokens of a text together;
    ``difference`` is the largest absolute one; ``same`` the share of equal top labels, of texts or of tokens (None where
    there are no labels to choose from); ``faster`` the ratio of the times.
    """

    texts: int
    cosine: float
    lowest: float
    difference: float
    same: float | None
    faster: float

    def lines(self) -> list[str]:
        """Say it in words."""
        same = [] if self.same is None else [f"same top label: {self.same:.2%}"]
        return [
            f"texts: {self.texts:,}",
            f"cosine of the outputs: {self.cosine:.4f} mean, {self.lowest:.4f} lowest",
            f"largest difference of an output: {self.difference:.4g}",
            *same,
            f"speed on this machine: {self.faster:.2f} times",
        ]


def quantize(bundle: Bundle, target: Path) -> Bundle:
    """Write an int8 form of a bundle into a new folder: weights of 8 bits a channel, activations quantised as they come.

    Raises `BundleError` where the folder is there already or the graph cannot be quantised.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingDependency("onnx", "quantising a model", "optimize") from error
    if target.exists():
        raise BundleError(f"{target} is there already: name another folder for the int8 bundle")
    found = {node.op_type for node in onnx.load(bundle.model_path, load_external_data=False).graph.node} & _QUANTIZED
    if found:
        raise BundleError(f"{bundle.model_path} is quantised already: it has {listed(sorted(found))}")
    check_tokenizer(bundle)
    model = Path(bundle.model).with_name("model_int8.onnx")
    try:
        for name in bundle.files:
            if name != bundle.model and name not in _CARDS and not _is_weights(bundle, name):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.folder / name, target / name)
        (target / model).parent.mkdir(parents=True, exist_ok=True)
        quantize_dynamic(
            bundle.model_path,
            target / model,
            per_channel=True,
            reduce_range=False,  # VNNI and ARM dot products do not overflow
            weight_type=QuantType.QInt8,
            use_external_data_format=bundle.weight_bytes > _LARGE,
        )
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        raise BundleError(f"{bundle.model_path} cannot be quantised: {type(error).__name__}: {error}") from error
    return open_bundle(target, str(model))


def _is_weights(bundle: Bundle, name: str) -> bool:
    return name in {str(Path(bundle.model).parent / file) for file in bundle.graph.external_files}


def agreement(original: Bundle, made: Bundle, texts: Sequence[str], batch_tokens: int = 512) -> Agreement:
    """Run both models over the texts and compare their first outputs."""
    output = original.logits.name
    models = [TextModel(each, Lengths(original.max_length), batch_tokens, "cpu") for each in (original, made)]
    encodings = models[0].tokenizer.encode(texts, offsets=False)
    seconds, outputs = [], []
    for model in models:
        model.run(encodings[:8], output)
        started = time.perf_counter()
        found = model.run(encodings, output)
        seconds.append(time.perf_counter() - started)
        outputs.append([each.astype(np.float64) for each in found])
    pairs = list(zip(*outputs, strict=True))
    cosines = [_cosine(left.ravel(), right.ravel()) for left, right in pairs]
    difference = max(float(np.abs(left - right).max()) for left, right in pairs)
    same = None
    if output == "logits" and pairs[0][0].shape[-1] > 1:
        same = float(np.mean(np.concatenate([np.atleast_1d(left.argmax(axis=-1) == right.argmax(axis=-1)) for left, right in pairs])))
    return Agreement(len(texts), float(np.mean(cosines)), min(cosines), difference, same, seconds[0] / seconds[1])


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / max(np.linalg.norm(left) * np.linalg.norm(right), np.finfo(np.float64).tiny))


def write_card(made: Bundle, original: Bundle, found: Agreement | None) -> None:
    """Write the README.md of an int8 bundle: what it was made from, how, and what was measured; the original's card follows."""
    measured = [f"- {line}" for line in found.lines()] if found else ["- nothing: no texts were given"]
    card = original.folder / "README.md"
    lines = [
        f"# {original.folder.name}, int8",
        "",
        f"`{made.model}` was made from `{original.model}` of the bundle with sha256 `{original.hash}` by `sparktasks optimize --int8`: ",
        "dynamic quantisation of onnxruntime, weights in int8 by channel, activations quantised by the range of each run.",
        "A text's result therefore depends a little on the texts it runs with; `batchInvariant=True` runs each by itself.",
        "",
        f"Size: {original.weight_bytes / 1e6:,.1f} MB before, {made.weight_bytes / 1e6:,.1f} MB now. Measured against the original:",
        "",
        *measured,
        *(["", "---", "", card.read_text(encoding="utf-8")] if card.is_file() else []),
    ]
    (made.folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
