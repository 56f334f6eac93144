"""TextEmbedder: vectors of documents, or of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparktasks.errors import BundleError, ParamError, did_you_mean, listed
from sparktasks.ops.pooling import POOLINGS, unit
from sparktasks.runtime.batching import distinct
from sparktasks.runtime.bundle import Bundle, check_text_encoder
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths, longest, stitched
from sparktasks.spark.annotations import CHUNK, DOCUMENT, SENTENCE_EMBEDDINGS, WORD_EMBEDDINGS, Annotation, Annotations
from sparktasks.spark.annotator import NO_TOKENS, annotate_each, fault, inherited
from sparktasks.spark.kernels import Kernel
from sparktasks.spark.params import P, one_of, param
from sparktasks.spark.text_annotator import TextModelAnnotator, TextRunner

if TYPE_CHECKING:
    from tokenizers import Encoding

_POOLED = "sentence_embedding"
_TOKEN_OUTPUTS = ("token_embeddings", "last_hidden_state")
_POOLING_KEYS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


class TextEmbedder(TextModelAnnotator):
    """Embeds documents with an encoder, as sentence-transformers does, whose files in the bundle are read.

    Writes sentence_embeddings, one per document: ``embeddings`` is the vector, ``result`` the text. Metadata:
    ``sentence``, and ``truncated`` = "true" where the end of a long text was not read. With ``level="token"`` it writes
    word_embeddings, one per model token, long texts in overlapping windows; ``result`` is the token's source text.
    """

    reads = ((DOCUMENT, CHUNK),)

    outputCol: P[str] = param("name of the column to write", default="embeddings")
    level: P[str] = param("what gets a vector: each document or each model token", default="document", check=one_of("document", "token"))
    pooling: P[str] = param(
        "how token vectors become one; auto reads the bundle's sentence-transformers files, and is mean without them",
        default="auto",
        check=one_of("auto", *POOLINGS),
    )
    normalize: P[bool | None] = param("scale vectors to length one; None asks the bundle's sentence-transformers files", default=None)
    prompt: P[str | None] = param("text put before every document, such as 'query: '", default=None)
    promptName: P[str | None] = param("name of a prompt of the bundle (config_sentence_transformers.json), instead of prompt", default=None)

    @property
    def writes(self) -> str:
        """sentence_embeddings, or word_embeddings with level="token"."""
        return SENTENCE_EMBEDDINGS if self.getOrDefault("level") == "document" else WORD_EMBEDDINGS

    def check_bundle(self, bundle: Bundle) -> None:
        """Want a tokenizer that fits, an output with vectors, and no module behind the pooling that the graph lacks."""
        check_text_encoder(bundle)
        names = [port.name for port in bundle.graph.outputs]
        if not {_POOLED, *_TOKEN_OUTPUTS} & set(names):
            raise BundleError(f"{bundle.folder}: {bundle.model} computes {listed(names)}, but an encoder's {listed(_TOKEN_OUTPUTS)} is wanted")
        kinds = [module["type"].rpartition(".")[2] for module in bundle.read_json("modules.json") or ()]
        unknown = set(kinds) - {"Transformer", "Pooling", "Normalize"}
        if unknown and _POOLED not in names:
            raise BundleError(f"{bundle.folder}: modules.json wants {listed(sorted(unknown))}, which the graph does not contain")

    def kernel(self) -> Kernel:
        """Return the executor half."""
        bundle = self.getBundle()
        sentence = bundle.read_json("sentence_bert_config.json") or {}
        most = longest(bundle, self.getOrDefault("maxLength") or sentence.get("max_seq_length"))
        common: dict[str, Any] = {
            "prompt": self._prompt(bundle),
            "lower": bool(sentence.get("do_lower_case")),
            "normalize": self._normalizes(bundle),
            "fails": self.fails(),
        }
        if self.getOrDefault("level") == "token":
            return EmbedTokens(**common, runner=self.runner(Lengths(most, (most or 0) // 8)))
        pooling = self.getOrDefault("pooling")
        return EmbedTexts(**common, runner=self.runner(Lengths(most)), pooling=_pooling_of(bundle) if pooling == "auto" else pooling)

    def _prompt(self, bundle: Bundle) -> str:
        name, prompt = self.getOrDefault("promptName"), self.getOrDefault("prompt")
        if name is None:
            return prompt or ""
        if prompt is not None:
            raise ParamError(f"{self.uid}: prompt={prompt!r} and promptName={name!r} exclude each other")
        prompts = (bundle.read_json("config_sentence_transformers.json") or {}).get("prompts") or {}
        if name not in prompts:
            raise ParamError(f"{self.uid}: the bundle has no prompt {name!r}.{did_you_mean(name, prompts)} It has: {listed(prompts)}")
        return str(prompts[name])

    def _normalizes(self, bundle: Bundle) -> bool:
        asked = self.getOrDefault("normalize")
        modules = bundle.read_json("modules.json") or ()
        return any(module["type"].endswith(".Normalize") for module in modules) if asked is None else asked


def _pooling_of(bundle: Bundle) -> str:
    """Read the pooling of sentence-transformers' files; a graph that pools itself is taken at its word."""
    if _POOLED in [port.name for port in bundle.graph.outputs]:
        return _POOLED
    config = bundle.read_json("1_Pooling/config.json")
    if config is None:
        return "mean"
    wanted = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(wanted) != 1 or wanted[0] not in _POOLING_KEYS:
        raise BundleError(f"{bundle.folder}/1_Pooling/config.json wants {listed(wanted)}; known is one of {listed(_POOLING_KEYS)}")
    return _POOLING_KEYS[wanted[0]]


@dataclass(frozen=True, kw_only=True)
class _Embed:
    runner: TextRunner
    prompt: str
    lower: bool
    normalize: bool
    fails: bool

    def token_vectors(self, model: TextModel, encodings: Sequence[Encoding]) -> list[np.ndarray]:
        return model.run(encodings, next(name for name in _TOKEN_OUTPUTS if name in model.session.outputs))

    def scaled(self, vectors: np.ndarray) -> np.ndarray:
        return (unit(vectors) if self.normalize else vectors).astype(np.float32)


def _lowered(text: str) -> str:
    """Lower-case a text without changing its length, so that offsets stay right."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(x.lower() if len(x.lower()) == 1 else x for x in text)


@dataclass(frozen=True, kw_only=True)
class EmbedTexts(_Embed):
    """documents -> sentence embeddings."""

    pooling: str

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])

        def compute(usable: list[int]) -> list[list[Annotation]]:
            unique, inverse = distinct([str(source.result[index]) for index in usable])
            vectors = self._vectors(unique)
            return [[_whole(source, index, *vectors[place])] for index, place in zip(usable, inverse, strict=True)]

        return annotate_each(SENTENCE_EMBEDDINGS, source, compute, self.fails)

    def _vectors(self, texts: Sequence[str]) -> list[tuple[np.ndarray | None, bool]]:
        """Return each text's vector ``(width,)`` and whether the text was cut; None for a text without tokens.

        Texts are stripped and lower-cased as sentence-transformers does.
        """
        if not texts:
            return []
        model = self.runner.open()
        stripped = [(self.prompt + text).strip() for text in texts]
        encodings = model.tokenizer.encode([text.lower() for text in stripped] if self.lower else stripped)
        known = [encoding for encoding in encodings if len(encoding.ids)]
        vectors = model.run(known, _POOLED) if self.pooling == _POOLED else map(POOLINGS[self.pooling], self.token_vectors(model, known))
        pooled = iter(vectors)
        return [(self.scaled(next(pooled)) if len(encoding.ids) else None, bool(encoding.overflowing)) for encoding in encodings]


def _whole(source: Annotations, index: int, vector: np.ndarray | None, truncated: bool) -> Annotation:
    if vector is None:
        return fault(SENTENCE_EMBEDDINGS, source, index, NO_TOKENS)
    metadata = inherited(source, index) | ({"truncated": "true"} if truncated else {})
    return Annotation(SENTENCE_EMBEDDINGS, source.begin[index], source.end[index], source.result[index], metadata, vector)


@dataclass(frozen=True, kw_only=True)
class EmbedTokens(_Embed):
    """documents -> word embeddings, one per model token of the text itself (not of the prompt)."""

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])

        def compute(usable: list[int]) -> list[list[Annotation]]:
            unique, inverse = distinct([str(source.result[index]) for index in usable])
            found = self._tokens(unique)
            return [[_token(source, index, span, vector) for span, vector in found[place]] for index, place in zip(usable, inverse, strict=True)]

        return annotate_each(WORD_EMBEDDINGS, source, compute)

    def _tokens(self, texts: Sequence[str]) -> list[list[tuple[tuple[int, int], np.ndarray]]]:
        """Return the span and the vector of every token of each text."""
        if not texts:
            return []
        model = self.runner.open()
        encodings = model.tokenizer.encode([self.prompt + (_lowered(text) if self.lower else text) for text in texts])
        windows = [model.tokenizer.windows(encoding) for encoding in encodings]
        vectors = iter(self.token_vectors(model, [window for each in windows for window in each]))
        shift, found = len(self.prompt), []
        for each in windows:
            stacked = [self.scaled(next(vectors)) for _ in each]
            spans = [window.offsets for window in each]
            places = [(number, place) for number, place in stitched(each, self.runner.lengths.stride) if spans[number][place][0] >= shift]
            found.append([((spans[n][p][0] - shift, spans[n][p][1] - shift), stacked[n][p]) for n, p in places])
        return found


def _token(source: Annotations, index: int, span: tuple[int, int], vector: np.ndarray) -> Annotation:
    start, end = span
    text, offset = str(source.result[index])[start:end], source.begin[index]
    return Annotation(WORD_EMBEDDINGS, offset + start, offset + end - 1, text, inherited(source, index), vector)
