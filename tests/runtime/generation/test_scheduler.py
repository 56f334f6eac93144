"""What a text is does not depend on who is generated beside it, nor on how much runs at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sparktasks.errors import DeliveryError
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.generation.decoder import Decoder
from sparktasks.runtime.generation.processors import processors_of
from sparktasks.runtime.generation.scheduler import BatchLimits, Scheduler
from sparktasks.runtime.generation.search import NotANumber, Request, Result, Rules
from sparktasks.runtime.generation.settings import Settings

ROOMY = BatchLimits(32, 1 << 16, 512)
SETTINGS = {
    "greedy": Settings(eos_token_id=(0,)),
    "beams": Settings(num_beams=3, num_return_sequences=2, eos_token_id=(0,)),
    "sampled": Settings(do_sample=True, eos_token_id=(0,)),
    "sampled beams": Settings(do_sample=True, num_beams=2, eos_token_id=(0,)),
    "processed": Settings(repetition_penalty=1.3, no_repeat_ngram_size=2, eos_token_id=(0,), min_new_tokens=3),
}


@pytest.fixture(scope="module")
def decoders(request: pytest.FixtureRequest) -> dict[str, Decoder]:
    bundle: Callable[[str], str] = request.getfixturevalue("bundle")
    return {name: Decoder(open_bundle(bundle(f"{name}-generation"))) for name in ("gpt2-text", "t5-text2text")}


def requests(model: str, count: int = 24) -> list[Request]:
    draw = np.random.default_rng(5)
    rows = [tuple(draw.integers(5, 250, size=draw.integers(1, 60)).tolist()) for _ in range(count)]
    keys = [bytes([number]) * 16 for number in range(count)]
    if model.startswith("t5"):
        return [Request((0,), row, key, limit=int(draw.integers(1, 30))) for row, key in zip(rows, keys, strict=True)]
    return [Request(row, (), key, limit=int(draw.integers(1, 30))) for row, key in zip(rows, keys, strict=True)]


def scheduler(decoder: Any, settings: Settings, limits: BatchLimits = ROOMY, positions: int | None = 256) -> Scheduler:
    return Scheduler(decoder, Rules(settings, processors_of(settings), None), limits, positions=positions)


def ids(results: Sequence[Result]) -> list[list[tuple[list[int], str]]]:
    return [[(text.ids, text.reason) for text in result] for result in results if not isinstance(result, Exception)]


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("model", ["gpt2-text", "t5-text2text"])
def test_texts_are_the_same_alone_and_together(model: str, kind: str, decoders: dict[str, Decoder]) -> None:
    requested = requests(model)
    alone = ids(scheduler(decoders[model], SETTINGS[kind], BatchLimits(1, 1 << 16, 512, alone=True)).run(requested))
    assert len({tuple(text[0][0]) for text in alone}) > 15
    for limits in (ROOMY, BatchLimits(6, 1 << 16, 512), BatchLimits(8, 400, 32)):
        assert ids(scheduler(decoders[model], SETTINGS[kind], limits).run(requested)) == alone
    backwards = scheduler(decoders[model], SETTINGS[kind]).run(requested[::-1])
    assert ids(backwards[::-1]) == alone


def test_limits_and_ends_are_kept_and_told(decoders: dict[str, Decoder]) -> None:
    requested = requests("gpt2-text")
    for request, result in zip(
        requested, ids(scheduler(decoders["gpt2-text"], SETTINGS["greedy"]).run(requested)), strict=True
    ):
        (tokens, reason), *_ = result
        assert len(tokens) <= request.limit
        assert reason == ("eos" if tokens[-1] == 0 else "length")
        assert reason == "eos" or len(tokens) == request.limit
        assert 0 not in tokens[:-1]


def test_no_tokens_asked_for_are_no_tokens(decoders: dict[str, Decoder]) -> None:
    results = scheduler(decoders["gpt2-text"], SETTINGS["greedy"]).run(
        [Request((5, 6), limit=0), Request((5, 6), limit=2)]
    )
    assert ids(results)[0] == [([], "length")]
    assert len(ids(results)[1][0][0]) == 2


def test_a_text_that_needs_more_room_than_there_is_fails_alone(decoders: dict[str, Decoder]) -> None:
    requested = [Request((5,) * 10, limit=5), Request((5,) * 100, limit=5)]
    results = scheduler(decoders["gpt2-text"], SETTINGS["greedy"], BatchLimits(8, 50, 512)).run(requested)
    assert "needs room for 105 tokens in a cache of 50 (cacheTokens)" in str(results[1])
    assert not isinstance(results[0], Exception)


def test_rows_that_are_done_never_leave_the_models_positions(decoders: dict[str, Decoder]) -> None:
    """A row at the last position stays in the batch for a while after it is done; the model must not be asked for one
    more."""
    full = Request(tuple(range(5, 255)), limit=6)
    others = [Request((7 + number,), limit=40) for number in range(9)]
    results = scheduler(decoders["gpt2-text"], Settings(), BatchLimits(10, 1 << 16, 512), positions=256).run(
        [full, *others]
    )
    assert [len(result[0].ids) for result in results if not isinstance(result, Exception)] == [6] + [40] * 9


class Reading:
    """A decoder that counts the prompt tokens it reads."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self.read = decoder, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def start(self, prompts: Sequence[Sequence[int]], source: Any, prefixes: Sequence[Any] = ()) -> Any:
        self.read += sum(len(prompt) for prompt in prompts)
        self.read -= sum(prefix.tokens for prefix in prefixes if prefix)
        return self._decoder.start(prompts, source, prefixes)


def test_a_shared_beginning_is_read_once_and_changes_nothing(decoders: dict[str, Decoder]) -> None:
    head = tuple(np.random.default_rng(1).integers(5, 250, size=80).tolist())
    requested = [replace(request, prompt=head + request.prompt) for request in requests("gpt2-text")]
    counting = Reading(decoders["gpt2-text"])
    shared = scheduler(counting, SETTINGS["greedy"])
    alone = ids(
        scheduler(decoders["gpt2-text"], SETTINGS["greedy"], BatchLimits(1, 1 << 16, 512, alone=True)).run(requested)
    )
    assert ids(shared.run(requested)) == alone
    own = sum(len(request.prompt) - len(head) for request in requested)
    assert counting.read <= own + len(head) + len(requested)
    counting.read = 0
    assert ids(shared.run(requested[:5])) == alone[:5]
    assert counting.read <= sum(len(request.prompt) - len(head) for request in requested[:5]) + 5, (
        "the beginning was read before"
    )


def test_long_prompts_are_read_in_pieces(bundle: Callable[[str], str]) -> None:
    opened = open_bundle(bundle("gpt2-text-generation"))
    requested = [
        Request(tuple(np.random.default_rng(2).integers(5, 250, size=size).tolist()), limit=5) for size in (200, 90, 3)
    ]
    whole, pieces = (scheduler(Decoder(opened, piece=piece), SETTINGS["greedy"]) for piece in (512, 16))
    assert ids(pieces.run(requested)) == ids(whole.run(requested))


class Poisoned:
    """A decoder whose logits are no numbers for one prompt's row: of its first token, or of those behind it."""

    def __init__(self, decoder: Decoder, value: float | list[float], first: bool) -> None:
        self._decoder, self._value, self._first = decoder, value, first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def _poisoned(self, logits: np.ndarray, batch: Any) -> np.ndarray:
        changed = np.array(logits)
        for row in np.flatnonzero((batch.history.ids == 249).any(axis=1)):
            changed[row, : np.size(self._value) if isinstance(self._value, list) else None] = self._value
        return changed

    def start(self, *args: Any) -> Any:
        logits, batch = self._decoder.start(*args)
        return (self._poisoned(logits, batch) if self._first else logits), batch

    def step(self, batch: Any) -> np.ndarray:
        return self._poisoned(self._decoder.step(batch), batch)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, [np.nan], [np.inf]])
@pytest.mark.parametrize("kind", SETTINGS)
def test_logits_that_are_no_numbers_are_an_error_of_their_row_only(
    kind: str, value: float | list[float], first: bool, decoders: dict[str, Decoder]
) -> None:
    requested = [Request((5, 6), key=b"a" * 16, limit=5), Request((249, 7), key=b"b" * 16, limit=5)]
    settings = replace(SETTINGS[kind], suppress_tokens=(249,))
    results = scheduler(Poisoned(decoders["gpt2-text"], value, first), settings).run(requested)
    assert isinstance(results[1], NotANumber)
    assert ids(results) == ids(scheduler(decoders["gpt2-text"], settings).run(requested[:1]))


class Failing:
    """A decoder that fails, as onnxruntime does, at texts with one token; ``parts`` says where."""

    def __init__(self, decoder: Decoder, *parts: str) -> None:
        self._decoder, self._parts = decoder, parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def _check(self, part: str, rows: Any) -> None:
        if part in self._parts and any(300 in row for row in rows):
            raise RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code\nsecond line")

    def encode(self, rows: Any, pad_id: int) -> Any:
        self._check("encode", rows)
        return self._decoder.encode(rows, pad_id)

    def start(self, prompts: Any, source: Any, prefixes: Any = ()) -> Any:
        self._check("start", prompts)
        return self._decoder.start(prompts, source, prefixes)

    def step(self, batch: Any) -> np.ndarray:
        self._check("step", batch.history.ids.tolist())
        return self._decoder.step(batch)


@pytest.mark.parametrize("kind", ["greedy", "beams", "sampled"])
@pytest.mark.parametrize(("model", "part"), [("t5-text2text", "encode"), ("gpt2-text", "start"), ("gpt2-text", "step")])
def test_a_run_that_fails_is_an_error_of_the_text_at_fault_only(
    model: str, part: str, kind: str, decoders: dict[str, Decoder]
) -> None:
    settings = replace(SETTINGS[kind], suppress_tokens=(300,), min_new_tokens=2)
    requested = [replace(request, limit=request.limit + 2) for request in requests(model)]
    faulty = {3, 11}
    for number in faulty:
        request = requested[number]
        if request.source:
            requested[number] = replace(request, source=(*request.source, 300))
        else:
            requested[number] = replace(request, prompt=(*request.prompt, 300))
    well = ids(scheduler(decoders[model], settings).run(requested))
    for limits in (ROOMY, BatchLimits(6, 1 << 16, 64)):
        results = scheduler(Failing(decoders[model], part), settings, limits).run(requested)
        assert {number for number, result in enumerate(results) if isinstance(result, Exception)} == faulty
        assert ids(results) == [text for number, text in enumerate(well) if number not in faulty]
        assert str(results[3]) == (
            "the model could not be run on this text: [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code"
        )


def test_a_beginning_that_cannot_be_read_is_an_error_of_the_texts_that_have_it(decoders: dict[str, Decoder]) -> None:
    head = (300, *range(5, 45))
    requested = [Request((*head, 7), limit=4), Request((*head, 8), limit=4), Request((9, 10), limit=4)]
    settings = replace(SETTINGS["greedy"], suppress_tokens=(300,))
    results = scheduler(Failing(decoders["gpt2-text"], "start"), settings).run(requested)
    assert [isinstance(result, Exception) for result in results] == [True, True, False]


def test_errors_of_the_configuration_are_no_errors_of_a_row(
    decoders: dict[str, Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise DeliveryError("the folder is gone")

    failing = Failing(decoders["gpt2-text"])
    monkeypatch.setattr(failing, "start", broken)
    with pytest.raises(DeliveryError):
        scheduler(failing, SETTINGS["greedy"]).run(requests("gpt2-text")[:2])
