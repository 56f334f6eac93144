"""Settings from the places that may say something, stop strings, and words for the tokenizer to spell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.generation.generator import Generator, GeneratorOptions, Prompt, Reading
from sparktasks.runtime.generation.scheduler import BatchLimits
from sparktasks.runtime.generation.search import Result
from sparktasks.runtime.generation.settings import Settings, read_settings, unsupported
from sparktasks.runtime.generation.stops import StopStrings
from sparktasks.runtime.generation.words import NO_WORDS, Words
from sparktasks.runtime.tokens import Lengths, open_tokenizer

ROOM = BatchLimits(8, 1 << 16, 512)


def test_what_is_said_last_goes_first_and_nulls_say_nothing() -> None:
    parsed = read_settings(
        {"num_beams": 4, "max_new_tokens": 256}, {"num_beams": 2, "eos_token_id": 7, "top_k": None}, {"other": 1}
    )
    assert (parsed.num_beams, parsed.max_new_tokens, parsed.eos_token_id, parsed.top_k) == (
        2,
        256,
        (7,),
        50,
    )


@pytest.mark.parametrize(
    ("settings", "prompt", "limit", "least"),
    [
        ({"max_new_tokens": 5, "min_new_tokens": 2}, 9, 5, 2),
        ({"max_length": 20, "min_length": 12}, 9, 11, 3),
        ({"max_length": 20, "max_new_tokens": 5}, 9, 5, 0),
        ({"max_length": 5}, 9, 0, 0),
    ],
)
def test_lengths_count_the_prompt_or_not(settings: dict[str, Any], prompt: int, limit: int, least: int) -> None:
    parsed = read_settings(settings)
    assert parsed.limit(prompt) == limit
    assert max(0, parsed.minimum(prompt)) == least


def test_what_the_engine_does_not_do_is_named() -> None:
    assert unsupported({"guidance_scale": 1.5, "penalty_alpha": 0.0, "num_beam_groups": 1, "eta_cutoff": None}) == {
        "guidance_scale": 1.5
    }


@pytest.mark.parametrize(
    ("stops", "text", "wanted"),
    [
        (["king"], "the king", True),
        (["king"], "the king is", False),
        (["the k", "zz"], "so the king", False),
        (["ing", "zz"], "so the king", True),
    ],
)
def test_a_stop_string_ends_a_text_with_the_token_that_completes_it(
    stops: list[str], text: str, wanted: bool, bundle: Callable[[str], str]
) -> None:
    tokenizer = open_tokenizer(open_bundle(bundle("gpt2-text-generation")), Lengths())
    ids = tokenizer.encode([text], offsets=False)[0].ids
    ends = [StopStrings(stops, tokenizer)(ids[:stop]) for stop in range(1, len(ids) + 1)]
    assert ends[-1] == wanted
    assert any(ends), "each of these texts has a token that completes a stop string"


ALL = Reading()


def generator(
    bundle: Callable[[str], str], settings: Settings, words: Words = NO_WORDS, reading: Reading = ALL
) -> Generator:
    options = GeneratorOptions(settings, reading, ROOM, words)
    return Generator(open_bundle(bundle("gpt2-text-generation")), options)


def ids(results: Sequence[Result]) -> list[list[list[int]]]:
    return [[text.ids for text in result] for result in results if not isinstance(result, Exception)]


def written(generator: Generator, prompt: Prompt) -> str:
    result = generator.run([prompt])[0]
    assert not isinstance(result, Exception)
    return generator.decode(result[0].ids)


def test_bad_words_are_not_written_and_biased_ones_are(bundle: Callable[[str], str]) -> None:
    plain = generator(bundle, Settings(max_new_tokens=24))
    prompt = plain.prompts(["What say you, my lord"])[0]
    word = next(word for word in written(plain, prompt).split() if len(word) > 2 and word.isalpha())
    assert word not in written(generator(bundle, Settings(max_new_tokens=24), Words(bad=(word,))), prompt).split()
    liked = generator(bundle, Settings(max_new_tokens=24), Words(bias=(("upon", 100.0),)))
    assert written(liked, prompt).count("upon") > 5


def test_equal_prompts_are_generated_once_and_draws_depend_on_seed_and_prompt_alone(
    bundle: Callable[[str], str],
) -> None:
    settings = Settings(max_new_tokens=12, do_sample=True, num_return_sequences=3, top_k=0)
    texts = ["my lord", "the king", "my lord", "what"]
    first = generator(bundle, settings)
    results = first.run(first.prompts(texts))
    assert results[0] is results[2]
    assert len({tuple(text.ids) for text in results[0]}) == 3  # type: ignore[union-attr]
    again = generator(bundle, settings)
    assert ids(again.run(again.prompts(texts[3:]))) == ids(results[3:])
    other = generator(bundle, Settings(max_new_tokens=12, do_sample=True, num_return_sequences=3, top_k=0, seed=1))
    assert ids(other.run(other.prompts(texts[3:]))) != ids(results[3:])


def test_spaces_are_tidied_in_the_continuation_and_not_across_its_border(bundle: Callable[[str], str]) -> None:
    tidy, plain = (generator(bundle, Settings(max_new_tokens=3), reading=Reading(tidy=tidy)) for tidy in (True, False))
    for before, behind, wanted in (
        ("a , b ", "! so , he 's .", "! so, he's."),
        ("a , b", " . so", ". so"),
        ("x ", "y", "y"),
    ):
        (prompt,) = plain.prompts([before])
        ids = plain.prompts([behind])[0].ids
        assert plain.continuation(prompt, ids) == behind
        assert tidy.continuation(prompt, ids) == wanted


@pytest.mark.parametrize(("side", "kept"), [("left", slice(-8, None)), ("right", slice(0, 8))])
def test_long_prompts_lose_the_side_that_was_asked_for_and_say_so(
    side: str, kept: slice, bundle: Callable[[str], str]
) -> None:
    text = "to be or not to be that is the question whether tis nobler in the mind"
    whole = generator(bundle, Settings(max_new_tokens=3)).prompts([text])[0]
    cut = generator(bundle, Settings(max_new_tokens=3), reading=Reading(8, side)).prompts([text])[0]
    assert (cut.ids, cut.truncated, whole.truncated) == (whole.ids[kept], True, False)
