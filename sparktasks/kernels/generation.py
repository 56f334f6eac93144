"""What the kernels that generate text share: the reference to a generator, and the annotation of a generated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparktasks.kernels.columns import DOCUMENT, Annotation
from sparktasks.kernels.parcels import BundleRef, locate
from sparktasks.runtime.generation.generator import Generator, GeneratorOptions, Prompt, open_generator
from sparktasks.runtime.generation.search import LENGTH, Generated


@dataclass(frozen=True)
class GeneratorRef:
    """A generator: its bundle, and how it works; what kernels carry instead of an open one."""

    bundle: BundleRef
    options: GeneratorOptions

    def open(self) -> Generator:
        """Return the generator, opened at first use in this process."""
        return open_generator(locate(self.bundle), self.options)


def generated_document(
    text: str,
    prompt: Prompt,
    parts: Sequence[Generated],
    metadata: Mapping[str, str],
) -> Annotation:
    """Return the annotation of a text that was generated, in one part or several.

    Metadata: what is given, ``finish_reason``, ``prompt_tokens``, ``new_tokens``, and ``truncated`` where the prompt
    was cut. The score is the mean log-probability of all new tokens.
    """
    tokens = sum(len(part.ids) for part in parts)
    entries = dict(metadata)
    entries["finish_reason"] = next((part.reason for part in parts if part.reason == LENGTH), parts[-1].reason)
    entries["prompt_tokens"] = str(len(prompt.ids))
    entries["new_tokens"] = str(tokens)
    if prompt.truncated:
        entries["truncated"] = "true"
    score = sum(part.score * len(part.ids) for part in parts) / max(1, tokens)
    return Annotation(DOCUMENT, 0, len(text) - 1, text, entries, None, score)


def join_prompts(prompts: Sequence[Prompt]) -> Prompt:
    """Return the prompts of a text's parts as one."""
    ids: list[int] = []
    for prompt in prompts:
        ids.extend(prompt.ids)
    return Prompt(tuple(ids), any(prompt.truncated for prompt in prompts))
