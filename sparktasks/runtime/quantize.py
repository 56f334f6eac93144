"""Making an int8 bundle, and measuring how far it agrees with the one it was made from."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparktasks.errors import BundleError, MissingDependency
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths

_LARGE = 1_500_000_000  # protobuf ends at 2 GiB
_CARDS = ("README.md",)


@dataclass(frozen=True)
class Agreement:
    """How a model's outputs compare with those of the one it was made from, over some texts.

    ``cosine`` and ``lowest`` are the mean and the lowest cosine of the texts' outputs (token outputs averaged over the
    text), ``same`` the share of equal top labels (None for encoders), ``faster`` the ratio of the times.
    """

    texts: int
    cosine: float
    lowest: float
    same: float | None
    faster: float

    def lines(self) -> list[str]:
        """Say it in words."""
        same = [] if self.same is None else [f"same top label: {self.same:.2%}"]
        return [
            f"texts: {self.texts:,}",
            f"cosine of the outputs: {self.cosine:.4f} mean, {self.lowest:.4f} lowest",
            *same,
            f"speed on this machine: {self.faster:.2f} times",
        ]


def quantize(bundle: Bundle, target: Path) -> Bundle:
    """Write an int8 form of a bundle into a new folder: weights of 8 bits a channel, activations quantised as they come.

    Raises `BundleError` where the folder is there already or the graph cannot be quantised.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingDependency("onnx", "quantising a model", "optimize") from error
    if target.exists():
        raise BundleError(f"{target} is there already: name another folder for the int8 bundle")
    model = Path(bundle.model).with_name(f"{Path(bundle.model).stem}_int8.onnx")
    for name in bundle.files:
        if name != bundle.model and name not in _CARDS and not _is_weights(bundle, name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / name, target / name)
    (target / model).parent.mkdir(parents=True, exist_ok=True)
    try:
        quantize_dynamic(
            bundle.model_path,
            target / model,
            per_channel=True,
            reduce_range=False,  # VNNI and ARM dot products do not overflow
            weight_type=QuantType.QInt8,
            use_external_data_format=bundle.weight_bytes > _LARGE,
        )
    except Exception as error:  # the quantiser raises whatever its parts do
        shutil.rmtree(target, ignore_errors=True)
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
        outputs.append(np.stack([each.mean(axis=0) if each.ndim > 1 else each for each in found]).astype(np.float64))
    left, right = outputs
    cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    same = float((left.argmax(axis=1) == right.argmax(axis=1)).mean()) if output == "logits" else None
    return Agreement(len(texts), float(cosines.mean()), float(cosines.min()), same, seconds[0] / seconds[1])


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
