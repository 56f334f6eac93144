"""How a graph's texts may be filled up to one length, found out by running it.

Padding must never change an answer, and no file says whether it does: a decoder that labels texts counts its tokens by
a pad id of its own, convolutions reach into padding, positions may begin at the first column. So a few short texts are
run alone and together, once per model and machine; where no way of padding gives the same, only texts of equal length
run together.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sparktasks.errors import DeliveryError
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.devices import CPU
from sparktasks.runtime.session import RunFailed, Session
from sparktasks.runtime.sharing import is_shared
from sparktasks.runtime.store import Store
from sparktasks.runtime.tokens import TextTokenizer

log = logging.getLogger(__name__)

_FORMAT = 1
_BODIES = (3, 7, 19)  # tokens of the texts that are run, besides special ones
_TOLERANCE = 2e-4  # of the largest output: float32 kernels differ by 1e-6 from one shape to another
_ROUGH_TOLERANCE = 2e-2  # of float16, and of GPUs, whose float32 may be TF32

Run = Callable[[Sequence[Sequence[int]], "Padding"], list[np.ndarray]]
"""Runs rows of token ids together, padded in one way; returns each row's part of the output."""


@dataclass(frozen=True)
class Padding:
    """A way of filling up shorter texts: with which id, and on which side.

    With ``equal_only`` there is none that leaves answers as they are: texts run with others of their length.
    """

    pad_id: int
    left: bool = False
    equal_only: bool = False

    def __str__(self) -> str:
        if self.equal_only:
            return "changes answers: only texts of equal length run together"
        side = "left" if self.left else "right"
        return f"changes no answer (token {self.pad_id}, on the {side})"


def find_padding(bundle: Bundle, tokenizer: TextTokenizer, session: Session, output: str, run: Run) -> Padding:
    """Return the way in which texts of a graph may be padded, for one of its outputs.

    Of large models the machine keeps what was found; small ones are asked again by each process.
    """
    if bundle.fixed_length is not None:  # every text is filled up: there is nothing to compare with
        return Padding(tokenizer.pad_id, tokenizer.files.pads_left)
    if not is_shared(bundle):
        return _probed(bundle, tokenizer, session, run)
    key = hashlib.sha256("\n".join([str(_FORMAT), bundle.hash, bundle.model, output, session.provider]).encode())

    def write(folder: Path) -> None:
        padding = _probed(bundle, tokenizer, session, run)
        (folder / "padding.json").write_text(json.dumps(asdict(padding)), encoding="utf-8")

    try:
        entry = Store().open("padding", key.hexdigest(), write)
        return Padding(**json.loads((entry.content / "padding.json").read_text(encoding="utf-8")))
    except (DeliveryError, OSError, ValueError, TypeError) as error:
        log.warning("%s: how to pad its texts is found out by each process: %s", bundle.model_path, error)
        return _probed(bundle, tokenizer, session, run)


def _probed(bundle: Bundle, tokenizer: TextTokenizer, session: Session, run: Run) -> Padding:
    """Return the first way of padding under which the sample texts answer together as they do alone."""
    rows = _sample_rows(bundle, tokenizer)
    likeliest = Padding(tokenizer.pad_id, tokenizer.files.pads_left)
    try:
        alone = [run([row], likeliest)[0] for row in rows]
    except RunFailed as error:
        log.warning("%s: a sample text could not be run: %s", bundle.model_path, error)
        return likeliest
    is_rough = session.provider != CPU or "float16" in bundle.graph.weight_types
    tolerance = _ROUGH_TOLERANCE if is_rough else _TOLERANCE
    most = tolerance * max(float(np.abs(answer).max()) for answer in alone)
    if not np.isfinite(most):  # there is nothing to compare: the rows will say so
        return likeliest
    for padding in _candidates(tokenizer):
        if _difference(alone, rows, run, padding) <= most:
            log.info("%s: padding %s", bundle.model_path, padding)
            return padding
    none = Padding(tokenizer.pad_id, tokenizer.files.pads_left, equal_only=True)
    log.warning("%s: padding %s", bundle.model_path, none)
    return none


def _candidates(tokenizer: TextTokenizer) -> Iterator[Padding]:
    side = tokenizer.files.pads_left
    for left in (side, not side):
        for pad_id in tokenizer.pad_ids:
            yield Padding(pad_id, left)


def _difference(alone: Sequence[np.ndarray], rows: Sequence[Sequence[int]], run: Run, padding: Padding) -> float:
    """Return by how much answers change when texts run together; infinity where the run fails or answers no number."""
    try:
        together = run(rows, padding)
    except RunFailed:
        return float("inf")
    largest = 0.0
    for one, other in zip(alone, together, strict=True):
        difference = float(np.abs(one - other).max())
        if not np.isfinite(difference):
            return float("inf")
        largest = max(largest, difference)
    return largest


def _sample_rows(bundle: Bundle, tokenizer: TextTokenizer) -> list[list[int]]:
    """Return token ids of three texts of unlike lengths: ordinary tokens, always the same, between the special ones."""
    encoding = tokenizer.core.encode("a")
    is_special = np.array(encoding.special_tokens_mask, bool)
    inner = np.flatnonzero(~is_special)
    if len(inner):
        before, after = encoding.ids[: inner[0]], encoding.ids[inner[-1] + 1 :]
    else:  # a vocabulary that makes nothing of "a"
        before, after = encoding.ids, []
    most = (bundle.max_length or max(_BODIES)) - len(before) - len(after)
    random = np.random.Generator(np.random.PCG64(0))
    sample = random.choice(_ordinary_ids(bundle, tokenizer), sum(_BODIES))
    # Each text has tokens of its own, so that no answer is right by being another text's.
    bodies = np.split(sample, np.cumsum(_BODIES)[:-1])
    return [[*before, *body[: max(1, most)].tolist(), *after] for body in bodies]


def _ordinary_ids(bundle: Bundle, tokenizer: TextTokenizer) -> np.ndarray:
    """Return the ids of tokens that are not added ones, and that the model has rows for."""
    added = list(tokenizer.core.get_added_tokens_decoder())
    rows = bundle.graph.embedding_rows or tokenizer.core.get_vocab_size(with_added_tokens=False)
    size = min(rows, tokenizer.core.get_vocab_size(with_added_tokens=False))
    ordinary = np.setdiff1d(np.arange(size), [*added, *tokenizer.pad_ids])
    return ordinary if len(ordinary) else np.zeros(1, np.int64)
