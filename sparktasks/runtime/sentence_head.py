"""The modules of sentence-transformers behind the pooling, run with numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparktasks.errors import BundleError
from sparktasks.ops.pooling import ACTIVATIONS, layer_norm, unit
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.sentence_files import DENSE, LAYER_NORM, Layer


class Head:
    """The modules behind the pooling, with their weights."""

    def __init__(self, folder: Path, layers: Sequence[Layer]) -> None:
        self._layers = [(layer, _weights(folder, layer)) for layer in layers]

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """Map a pooled vector ``(width,)`` to the vector of a text, float32."""
        mapped = vector.astype(np.float32)
        for layer, weights in self._layers:
            if layer.kind == DENSE:
                # A module may be trained without a bias.
                bias = weights.get("linear.bias", np.float32(0))
                mapped = weights["linear.weight"] @ mapped + bias
                mapped = ACTIVATIONS[layer.activation](mapped)
            elif layer.kind == LAYER_NORM:
                mapped = layer_norm(mapped, weights["norm.weight"], weights["norm.bias"])
            else:
                mapped = unit(mapped)
        return mapped


def _weights(folder: Path, layer: Layer) -> dict[str, np.ndarray]:
    """Read the weights of a module, as float32; none where it has no folder."""
    if not layer.path:
        return {}
    from safetensors.numpy import load_file

    path = folder / layer.path / "model.safetensors"
    try:
        weights = load_file(path)
    except Exception as error:  # the library raises a family of its own
        raise BundleError(f"{path} cannot be read: {error}") from error
    return {name: array.astype(np.float32) for name, array in weights.items()}


_heads: ProcessCache[Head] = ProcessCache(limit=32)


def open_head(bundle: Bundle, layers: tuple[Layer, ...]) -> Head:
    """Return this process's modules behind the pooling of a bundle, loaded at first use."""
    return _heads.get((bundle.hash, layers), lambda: Head(bundle.folder, layers))
