"""What the kernels that generate text share: the reference to a generator, and the annotation of a generated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparktasks.kernels.columns import DOCUMENT, Annotation
from sparktasks.kernels.parcels import BundleRef, locate
from sparktasks.runtime.generation.generator import Generator, GeneratorOptions, Prompt, Reading, open_generator
from sparktasks.runtime.generation.scheduler import Capacity
from sparktasks.runtime.generation.search import LENGTH, Generated
from sparktasks.runtime.generation.settings import Settings
from sparktasks.runtime.generation.words import Words


@dataclass(frozen=True)
class GeneratorRef:
    """A generator: its bundle, its settings, and how it is run; what kernels carry instead of an open one."""

    bundle: BundleRef
    settings: Settings
    reading: Reading
    capacity: Capacity
    words: Words
    device: str
    run_seconds: float

    def open(self) -> Generator:
        """Return the generator, opened at first use in this process."""
        bundle = locate(self.bundle)
        options = GeneratorOptions(
            self.settings, self.reading, self.capacity, self.words, self.device, self.run_seconds
        )
        return open_generator(bundle, options)


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
