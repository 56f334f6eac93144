"""TextEmbedder: vectors of documents, or of their tokens."""

from __future__ import annotations

import warnings

from sparktasks.errors import BundleError, ParamError, did_you_mean, listed
from sparktasks.kernels.columns import CHUNK, DOCUMENT, SENTENCE_EMBEDDINGS, WORD_EMBEDDINGS
from sparktasks.kernels.plan import Kernel
from sparktasks.kernels.text_embedding import EmbedTexts, EmbedTokens
from sparktasks.ops.pooling import POOLINGS
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.checks import check_text_encoder
from sparktasks.runtime.sentence_files import (
    NORMALIZE,
    POOLED,
    TOKEN_OUTPUTS,
    Layer,
    SentenceFiles,
    read_sentence_files,
)
from sparktasks.runtime.tokens import Lengths, longest
from sparktasks.spark.params import P, at_least, one_of, param
from sparktasks.spark.text_annotator import TextModelAnnotator


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
                f"{listed(TOKEN_OUTPUTS)} is expected"
            )
        # Modules that cannot be followed are refused here, before a job starts.
        read_sentence_files(bundle)

    def kernel(self) -> Kernel:
        """Return the executor half."""
        bundle = self.getBundle()
        files = read_sentence_files(bundle)
        asked = self.getOrDefault(self.maxLength)
        # What sentence-transformers reads of a text goes before what the model has positions for.
        most = longest(bundle, asked)
        if asked is None and files.max_length is not None:
            most = files.max_length
        if files.assumed:
            self._warn_of_assumptions(files, most)
        # True or False is the user's word; None leaves scaling to the bundle's own layers.
        normalize = self.getOrDefault(self.normalize)
        if self.getOrDefault(self.level) == "token":
            lengths = Lengths(most, (most or 0) // 8, lower=files.lower, windows=True)
            return EmbedTokens(
                model=self.model_ref(lengths),
                prompt=self._prompt(files),
                normalize=files.normalizes if normalize is None else normalize,
                fails=self.fails(),
            )
        return EmbedTexts(
            model=self.model_ref(Lengths(most, lower=files.lower)),
            prompt=self._prompt(files),
            pooling=self._pooling(bundle, files),
            pools_prompt=files.pools_prompt,
            layers=self._layers(files),
            dimensions=self.getOrDefault(self.truncateDim) or files.dimensions,
            scales=bool(normalize),
            fails=self.fails(),
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
        # The graph pools all tokens: that is right unless a prompt's must be left out.
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
        # Either the kernel scales, or nothing does.
        return tuple(layer for layer in files.layers if layer.kind != NORMALIZE)

    def _warn_of_assumptions(self, files: SentenceFiles, most: int | None) -> None:
        # Only what the user did not set: naming it says how to end the warning.
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
