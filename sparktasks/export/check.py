"""Whether an exported model answers as the one in PyTorch does."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparktasks.errors import BundleError, DataError
from sparktasks.export.source import Source
from sparktasks.export.tasks import ANSWERS, CONTINUES, LABELS_TEXTS, LABELS_TOKENS, Form, load_network
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.checks import check_logits, check_text_encoder
from sparktasks.runtime.generation.generator import Generator, GeneratorOptions, Prompt, Reading
from sparktasks.runtime.generation.layout import check_generator
from sparktasks.runtime.generation.scheduler import BatchLimits
from sparktasks.runtime.generation.settings import Settings
from sparktasks.runtime.sentence_files import TOKEN_OUTPUTS, read_sentence_files
from sparktasks.runtime.sentence_head import open_head
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths

if TYPE_CHECKING:
    from tokenizers import Encoding

TOLERANCE = 1e-4

# Texts of unequal length, so that some are padded. They hold little that a vocabulary may lack.
_TEXTS = (
    "The river rose two metres overnight, and the lower road is closed.",
    "In São Paulo, café owners counted 100% more guests!",
    "Ada wrote the first program in 1843.",
    "It works",
    "Who asked for the minutes of the last meeting, and did anybody send them?",
)
_NEW_TOKENS = 16
_BATCH_TOKENS = 512

_Answer = tuple[str, str | None, "Encoding", np.ndarray]
"""A text and its partner, their tokens, and what the ONNX model computes for them."""


def check_bundle(bundle: Bundle, form: Form) -> None:
    """Raise `BundleError` where a folder is none that the form's annotators take."""
    if form in (ANSWERS, CONTINUES):
        check_generator(bundle)
        return
    check_text_encoder(bundle)
    if form is LABELS_TEXTS:
        check_logits(bundle, "batch", "labels")
    elif form is LABELS_TOKENS:
        check_logits(bundle, "batch", "tokens", "labels")
    elif bundle.logits.name in TOKEN_OUTPUTS:
        open_head(bundle, read_sentence_files(bundle).layers)
    else:
        raise BundleError(f"{bundle.folder}: {bundle.model} computes {bundle.logits.name}, and no states of tokens")


def check_answers(bundle: Bundle, source: Source, form: Form, tokenizer: Any) -> str:
    """Run both models on a few texts, and say what was compared; `BundleError` where they differ.

    Of models that generate, the tokens of a greedy search are compared; of others the logits, or the states of tokens.
    """
    import torch

    network = load_network(source, form)
    with torch.no_grad():
        if form in (ANSWERS, CONTINUES):
            text, difference = _compare_tokens(bundle, network)
            what = f"{len(_TEXTS)} texts of {_NEW_TOKENS} tokens, the same in PyTorch"
        else:
            text, difference = _compare_outputs(bundle, network, form, tokenizer)
            what = f"{len(_TEXTS)} texts, the largest difference from PyTorch is {difference:.1e}"
    if not difference <= TOLERANCE:  # NaN is none
        raise BundleError(
            f"{source.name}: the exported model does not answer as the one in PyTorch does. The largest difference is "
            f"{difference:.3g}, for {text!r}; {TOLERANCE:g} is allowed"
        )
    return what


def _compare_outputs(bundle: Bundle, network: Any, form: Form, tokenizer: Any) -> tuple[str, float]:
    """Return the text whose logits or states of tokens differ most, and by how much."""
    differences: dict[str, float] = {}
    for text, partner, encoding, answer in _onnx_answers(bundle, form):
        ids, expected = _torch_answer(network, tokenizer, text, partner, bundle.max_length)
        if list(encoding.ids) != ids:
            raise BundleError(
                f"{bundle.folder}: tokenizer.json makes {list(encoding.ids)} of {text!r}, but transformers makes {ids}"
            )
        differences[text] = max(_difference(answer, expected), differences.get(text, 0.0))
    worst = max(differences, key=differences.__getitem__)
    return worst, differences[worst]


def _onnx_answers(bundle: Bundle, form: Form) -> Iterator[_Answer]:
    """Run the texts, for labels of texts also in pairs."""
    yield from _onnx_batch(bundle, None)
    if form is LABELS_TEXTS:
        yield from _onnx_batch(bundle, _TEXTS[::-1])


def _onnx_batch(bundle: Bundle, partners: Sequence[str] | None) -> Iterator[_Answer]:
    """Run all texts together."""
    model = TextModel(bundle, Lengths(bundle.max_length, pairs=partners is not None), _BATCH_TOKENS, "cpu")
    encodings = model.tokenizer.encode(_TEXTS, partners, offsets=False)
    answers = model.run(encodings, bundle.logits.name)
    others: Sequence[str | None] = partners or [None] * len(_TEXTS)
    for text, other, encoding, answer in zip(_TEXTS, others, encodings, answers, strict=True):
        if isinstance(answer, DataError):
            raise BundleError(f"{bundle.model_path} cannot read {text!r}: {answer}")
        yield text, other, encoding, answer


def _torch_answer(
    network: Any, tokenizer: Any, text: str, partner: str | None, max_length: int | None
) -> tuple[list[int], np.ndarray]:
    """Return the token ids of one text or pair, and the network's first output for it."""
    truncates = max_length is not None
    encoded = tokenizer(text, partner, truncation=truncates, max_length=max_length, return_tensors="pt")
    known = inspect.signature(network.forward).parameters
    output = network(**{name: rows for name, rows in encoded.items() if name in known})[0][0]
    return encoded["input_ids"][0].tolist(), output.numpy()


def _difference(answered: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference, relative to the largest number where that is above 1."""
    if answered.shape != wanted.shape or not np.isfinite(answered).all():
        return math.inf
    return float(np.abs(answered - wanted).max() / max(1.0, np.abs(wanted).max()))


def _compare_tokens(bundle: Bundle, network: Any) -> tuple[str, float]:
    """Return the text whose generated tokens differ most from PyTorch's choices, and by what log-probability."""
    start = bundle.config.get("decoder_start_token_id") or 0
    settings = Settings(max_new_tokens=_NEW_TOKENS, decoder_start_token_id=start)
    room = None if bundle.positions is None else bundle.positions - _NEW_TOKENS
    limits = BatchLimits(len(_TEXTS), 1 << 16, _BATCH_TOKENS)
    generator = Generator(bundle, GeneratorOptions(settings, Reading(room), limits, device="cpu"))
    prompts = generator.prompts(_TEXTS)
    gaps: dict[str, float] = {}
    for text, prompt, result in zip(_TEXTS, prompts, generator.run(prompts), strict=True):
        if isinstance(result, Exception):
            raise BundleError(f"{bundle.model_path} cannot continue {text!r}: {result}")
        gaps[text] = _largest_gap(network, prompt, start, result[0].ids)
    worst = max(gaps, key=gaps.__getitem__)
    return worst, gaps[worst]


def _largest_gap(network: Any, prompt: Prompt, start: int, generated: Sequence[int]) -> float:
    """Return how much likelier than a generated token the likeliest one is at most; 0 where all were the likeliest.

    The network reads the whole text at once, without a cache. Two tokens may be equally likely, as far as 32 bits tell.
    """
    import torch

    ids = torch.tensor([prompt.ids])
    new = torch.tensor([generated])
    if network.config.is_encoder_decoder:
        given = torch.cat([torch.tensor([[start]]), new[:, :-1]], dim=1)
        logits = network(input_ids=ids, decoder_input_ids=given).logits[0]
    else:
        logits = network(input_ids=torch.cat([ids, new[:, :-1]], dim=1)).logits[0, len(prompt.ids) - 1 :]
    log_probabilities = logits.log_softmax(-1)
    chosen = log_probabilities.gather(-1, new.T)[:, 0]
    return float((log_probabilities.max(-1).values - chosen).max())
