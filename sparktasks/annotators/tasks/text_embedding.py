"""TextEmbedder: vectors of documents, or of their tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparktasks.errors import BundleError, DataError, ParamError, did_you_mean, listed
from sparktasks.ops.pooling import POOLINGS, pool, unit
from sparktasks.runtime.batching import distinct
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.checks import check_text_encoder
from sparktasks.runtime.sentence_files import (
    NORMALIZE,
    POOLED,
    TOKEN_OUTPUTS,
    Layer,
    SentenceFiles,
    open_head,
    read_sentence_files,
)
from sparktasks.runtime.text_model import Answer, TextModel, whole
from sparktasks.runtime.tokens import Lengths, longest, stitched
from sparktasks.spark.annotations import CHUNK, DOCUMENT, SENTENCE_EMBEDDINGS, WORD_EMBEDDINGS, Annotation, Annotations
from sparktasks.spark.annotator import NO_TOKENS, annotate_each, failed, inherited
from sparktasks.spark.kernels import Kernel
from sparktasks.spark.params import P, at_least, one_of, param
from sparktasks.spark.text_annotator import TextModelAnnotator, TextRunner

if TYPE_CHECKING:
    from tokenizers import Encoding


class TextEmbedder(TextModelAnnotator):
    """Embeds documents with an encoder, as sentence-transformers does, whose files in the bundle are read.

    Writes sentence_embeddings, one per document: ``embeddings`` is the vector, ``result`` the text. Metadata:
    ``sentence``, and ``truncated`` = "true" where the end of a long text was not read. With ``level="token"`` it writes
    word_embeddings, one per model token, long texts in overlapping windows; ``result`` is the token's source text.
    """

    reads = ((DOCUMENT, CHUNK),)

    outputCol: P[str] = param("name of the column to write", default="embeddings")
    level: P[str] = param(
        "what gets a vector: each document or each model token", default="document", check=one_of("document", "token")
    )
    pooling: P[str] = param(
        "how token vectors become one; auto reads the bundle's sentence-transformers files, and is mean without them",
        default="auto",
        check=one_of("auto", *POOLINGS),
    )
    normalize: P[bool | None] = param(
        "scale vectors to length one; None does what the bundle's sentence-transformers files say", default=None
    )
    prompt: P[str | None] = param(
        "text put before every document, such as 'query: '; None is the bundle's default prompt, '' is none",
        default=None,
    )
    promptName: P[str | None] = param(
        "name of a prompt of the bundle (config_sentence_transformers.json), instead of prompt", default=None
    )
    truncateDim: P[int | None] = param(
        (
            "numbers of each vector to keep, for models trained for that (Matryoshka); None asks the bundle, "
            "which keeps all"
        ),
        default=None,
        check=at_least(1),
    )

    @property
    def writes(self) -> str:
        """sentence_embeddings, or word_embeddings with level="token"."""
        return SENTENCE_EMBEDDINGS if self.getOrDefault(self.level) == "document" else WORD_EMBEDDINGS

    def check_bundle(self, bundle: Bundle) -> None:
        """Require a tokenizer that fits, an output with vectors, and sentence-transformers files that can be
        followed."""
        check_text_encoder(bundle)
        names = [port.name for port in bundle.graph.outputs]
        if not {POOLED, *TOKEN_OUTPUTS} & set(names):
            raise BundleError(
                f"{bundle.folder}: {bundle.model} computes {listed(names)}, but an encoder's "
                f"{listed(TOKEN_OUTPUTS)} is wanted"
            )
        read_sentence_files(bundle)

    def kernel(self) -> Kernel:
        """Return the executor half."""
        bundle = self.getBundle()
        files = read_sentence_files(bundle)
        asked = self.getOrDefault(self.maxLength)
        most = files.max_length if asked is None and files.max_length is not None else longest(bundle, asked)
        if files.assumed:
            self._warn_of_assumptions(files, most)
        normalize = self.getOrDefault(self.normalize)
        common: dict[str, Any] = {"prompt": self._prompt(files), "fails": self.fails()}
        if self.getOrDefault(self.level) == "token":
            lengths = Lengths(most, (most or 0) // 8, lower=files.lower, windows=True)
            return EmbedTokens(
                **common, runner=self.runner(lengths), normalize=files.normalizes if normalize is None else normalize
            )
        return EmbedTexts(
            **common,
            runner=self.runner(Lengths(most, lower=files.lower)),
            pooling=self._pooling(bundle, files),
            pools_prompt=files.pools_prompt,
            layers=self._layers(files),
            dimensions=self.getOrDefault(self.truncateDim) or files.dimensions,
            scales=bool(normalize),
        )

    def _prompt(self, files: SentenceFiles) -> str:
        name, prompt = self.getOrDefault(self.promptName), self.getOrDefault(self.prompt)
        if name is None:
            return files.default_prompt if prompt is None else prompt
        if prompt is not None:
            raise ParamError(f"{self.uid}: prompt={prompt!r} and promptName={name!r} cannot be combined")
        if name not in files.prompts:
            raise ParamError(
                f"{self.uid}: the bundle has no prompt {name!r}.{did_you_mean(name, files.prompts)} It has: "
                f"{listed(files.prompts)}"
            )
        return files.prompts[name]

    def _pooling(self, bundle: Bundle, files: SentenceFiles) -> tuple[str, ...]:
        """Return the pooling modes; none where the graph pools itself."""
        asked = self.getOrDefault(self.pooling)
        if asked != "auto":
            return (asked,)
        names = [port.name for port in bundle.graph.outputs]
        if POOLED not in names:
            return files.pooling
        if files.pools_prompt or not self._prompt(files):
            return ()
        if not set(TOKEN_OUTPUTS) & set(names):
            raise BundleError(
                f"{bundle.folder}: its files leave the prompt's tokens out of the pooling, but {bundle.model} "
                "pools by itself"
            )
        return files.pooling

    def _layers(self, files: SentenceFiles) -> tuple[Layer, ...]:
        """Return what follows the pooling; scaling to length one is left out where ``normalize`` says so."""
        if self.getOrDefault(self.normalize) is None:
            return files.layers
        return tuple(layer for layer in files.layers if layer.kind != NORMALIZE)

    def _warn_of_assumptions(self, files: SentenceFiles, most: int | None) -> None:
        assumed = []
        if self.getOrDefault(self.pooling) == "auto" and self.getOrDefault(self.level) == "document":
            assumed.append(f"pooling='{files.pooling[0]}'")
        if self.getOrDefault(self.normalize) is None:
            assumed.append("normalize=False")
        if self.getOrDefault(self.maxLength) is None and files.max_length is None:
            assumed.append(f"maxLength={most}")
        if assumed:
            warnings.warn(
                f"{self.uid}: {self.getBundle().folder} has no sentence-transformers files (modules.json, 1_Pooling), "
                f"so these are assumed: {', '.join(assumed)}. Set the params, or copy the files from the model's "
                "repository",
                stacklevel=4,
            )


@dataclass(frozen=True, kw_only=True)
class _Embed:
    runner: TextRunner
    prompt: str
    fails: bool

    def token_vectors(self, model: TextModel, encodings: Sequence[Encoding]) -> list[Answer]:
        """Return the vectors of each encoding's tokens, ``(tokens, width)``."""
        return model.run(encodings, next(name for name in TOKEN_OUTPUTS if name in model.session.outputs))


@dataclass(frozen=True, kw_only=True)
class EmbedTexts(_Embed):
    """documents -> sentence embeddings."""

    pooling: tuple[str, ...]
    pools_prompt: bool
    layers: tuple[Layer, ...]
    dimensions: int | None
    scales: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])

        def compute(usable: list[int]) -> list[list[Annotation]]:
            unique, inverse = distinct([str(source.result[index]) for index in usable])
            vectors = self._vectors(unique)
            return [[_whole(source, index, *vectors[place])] for index, place in zip(usable, inverse, strict=True)]

        return annotate_each(SENTENCE_EMBEDDINGS, source, compute, self.fails)

    def _vectors(self, texts: Sequence[str]) -> list[tuple[Answer, bool]]:
        """Return each text's vector ``(width,)``, or what is wrong with it, and whether the text was cut."""
        if not texts:
            return []
        model = self.runner.open()
        head = open_head(model.bundle, self.layers)
        skipped = 0 if self.pools_prompt else _prompt_tokens(model, self.prompt)
        encodings = model.tokenizer.encode([self.prompt + text for text in texts], offsets=False)
        outputs = self.token_vectors(model, encodings) if self.pooling else model.run(encodings, POOLED)
        found: list[tuple[Answer, bool]] = []
        for encoding, output in zip(encodings, outputs, strict=True):
            vector = self._vector(encoding, output, skipped)
            if not isinstance(vector, DataError):
                vector = self._finished(head(vector))
            found.append((vector, bool(encoding.overflowing)))
        return found

    def _vector(self, encoding: Encoding, output: Answer, skipped: int) -> Answer:
        """Pool a text's token vectors, unless the graph did."""
        if not len(encoding.ids):
            return DataError(NO_TOKENS)
        if isinstance(output, DataError) or not self.pooling:
            return output
        if skipped >= len(output):
            return DataError(f"the prompt {self.prompt!r} leaves no room for the text")
        return pool(output, self.pooling, skipped)

    def _finished(self, vector: np.ndarray) -> Answer:
        vector = vector[: self.dimensions]
        vector = unit(vector) if self.scales else vector
        return vector if np.isfinite(vector).all() else DataError("the vector of this text has NaN or infinity in it")


def _prompt_tokens(model: TextModel, prompt: str) -> int:
    """Return how many tokens a prompt takes, the special ones before it included, as sentence-transformers counts."""
    if not prompt:
        return 0
    encoding = model.tokenizer.encode([prompt])[0]
    if encoding.overflowing or not len(encoding.ids):
        return len(encoding.ids)
    return len(encoding.ids) - int(encoding.special_tokens_mask[-1])


def _whole(source: Annotations, index: int, vector: Answer, truncated: bool) -> Annotation:
    if isinstance(vector, DataError):
        return failed(SENTENCE_EMBEDDINGS, source, index, vector)
    metadata = inherited(source, index) | ({"truncated": "true"} if truncated else {})
    return Annotation(
        SENTENCE_EMBEDDINGS, source.begin[index], source.end[index], source.result[index], metadata, vector
    )


_Spans = list[tuple[tuple[int, int], np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class EmbedTokens(_Embed):
    """documents -> word embeddings, one per model token of the text itself (not of the prompt)."""

    normalize: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])

        def compute(usable: list[int]) -> list[list[Annotation]]:
            unique, inverse = distinct([str(source.result[index]) for index in usable])
            found = self._tokens(unique)
            made = []
            for index, place in zip(usable, inverse, strict=True):
                tokens = found[place]
                if isinstance(tokens, DataError):
                    made.append([failed(WORD_EMBEDDINGS, source, index, tokens)])
                else:
                    made.append([_token(source, index, span, vector) for span, vector in tokens])
            return made

        return annotate_each(WORD_EMBEDDINGS, source, compute, self.fails)

    def _tokens(self, texts: Sequence[str]) -> list[_Spans | DataError]:
        """Return the span and the vector of every token of each text, or what is wrong with a text."""
        if not texts:
            return []
        model = self.runner.open()
        encodings = model.tokenizer.encode([self.prompt + text for text in texts])
        windows = [model.tokenizer.windows(encoding) for encoding in encodings]
        vectors = iter(self.token_vectors(model, [window for each in windows for window in each]))
        found: list[_Spans | DataError] = []
        for each in windows:
            stacked = whole([next(vectors) for _ in each])
            found.append(stacked if isinstance(stacked, DataError) else self._read(each, stacked))
        return found

    def _read(self, windows: Sequence[Encoding], vectors: Sequence[np.ndarray]) -> _Spans:
        shift, found = len(self.prompt), []
        for number, place in stitched(windows, self.runner.lengths.stride):
            begin, end = windows[number].offsets[place]
            if begin >= shift:
                vector = vectors[number][place]
                found.append(
                    ((begin - shift, end - shift), unit(vector) if self.normalize else vector.astype(np.float32))
                )
        return found


def _token(source: Annotations, index: int, span: tuple[int, int], vector: np.ndarray) -> Annotation:
    start, end = span
    text, offset = str(source.result[index])[start:end], source.begin[index]
    return Annotation(WORD_EMBEDDINGS, offset + start, offset + end - 1, text, inherited(source, index), vector)
