"""What kernels carry instead of an open text model: a small value that pickles, opened at first use in each process."""

from __future__ import annotations

from dataclasses import dataclass

from sparktasks.kernels.parcels import BundleRef, locate
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths


@dataclass(frozen=True)
class TextModelRef:
    """A text model: its bundle, how texts are cut, and how it is run."""

    bundle: BundleRef
    lengths: Lengths
    batch_tokens: int
    device: str
    run_seconds: float

    def open(self) -> TextModel:
        """Return the model, opened at first use in this process."""
        return TextModel(locate(self.bundle), self.lengths, self.batch_tokens, self.device, self.run_seconds)
