"""Texts by a grammar: tokens that a JSON schema or a regular expression does not allow are never chosen (with
llguidance)."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import numpy as np

from sparktasks.errors import BundleError, MissingDependency, ParamError
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.processors import Processor, Progress

_KEPT_STATES = 4096  # the least recently used is dropped first, and computed again if it is needed


def json_grammar(schema: Mapping[str, Any]) -> str:
    """Return the grammar of the JSON texts that a JSON schema describes, without white space; `ParamError` if it is no
    schema."""
    source = {"x-guidance": {"whitespace_flexible": False}} | dict(schema)
    return _grammar(
        lambda matcher: str(matcher.grammar_from_json_schema(source)),
        f"jsonSchema={json.dumps(schema)[:200]}",
    )


def regex_grammar(pattern: str) -> str:
    """Return the grammar of the texts that match a regular expression; `ParamError` if it is none."""
    return _grammar(lambda matcher: str(matcher.grammar_from_regex(pattern)), f"regex={pattern!r}")


def _grammar(build: Callable[[Any], str], param: str) -> str:
    """Build a grammar with llguidance, and check that it can be used."""
    matcher = _llguidance().LLMatcher
    grammar = ""
    try:
        grammar = build(matcher)
        fault = matcher.validate_grammar(grammar, None)
    except ValueError as error:
        fault = str(error)
    if fault:
        raise ParamError(f"{param} is not allowed: {fault}")
    return grammar


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingDependency("llguidance", "a constraint on generated text", "constraints") from error
    return llguidance


class Constrain(Processor):
    """Forbids the tokens with which a text could not become one of the grammar's.

    What may follow depends on the new tokens alone, so that all rows that have the same ones share a state.
    """

    def __init__(self, grammar: str, bundle: Bundle, ends: tuple[int, ...]) -> None:
        library = _llguidance()
        if not bundle.tokenizer_path.is_file():
            raise BundleError(f"{bundle.folder} has no tokenizer.json, which constraints on generated text need")
        if not ends:
            raise BundleError(f"{bundle.folder} has no end token, so that a text could not end where the grammar says")
        width = bundle.logits.shape[-1]
        self._tokenizer = library.LLTokenizer(
            str(bundle.tokenizer_path),
            n_vocab=width if isinstance(width, int) else None,  # None: as many as the tokenizer has
            eos_token=list(ends),
        )
        self._ends = np.array(ends)
        self._start = library.LLMatcher(self._tokenizer, grammar)
        if self._start.is_error():
            raise ParamError(f"the grammar cannot be used with {bundle.tokenizer_path}: {self._start.get_error()}")
        self._lock = Lock()
        self._states: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        with self._lock:  # several threads may share a generator
            for row, count in enumerate(progress.new):
                state = self._state(tuple(progress.history.row(row, int(count))))
                if not state.is_error():  # a finished row goes on to run until it is dropped, with any tokens
                    self._restrict(state, scores[row])

    def _state(self, new: tuple[int, ...]) -> Any:
        """Return the state that new tokens lead to."""
        if not new:
            return self._start
        state = self._states.get(new)
        if state is None:
            state = self._states[new] = self._next_state(new)
        self._states.move_to_end(new)
        while len(self._states) > _KEPT_STATES:
            self._states.popitem(last=False)
        return state

    def _next_state(self, new: tuple[int, ...]) -> Any:
        """Compute a state: from that of all tokens but the last, or if that was dropped, from the beginning."""
        before = self._states.get(new[:-1])
        rest = new[-1:]
        if before is None:
            before = self._start
            rest = new
        state = before.deep_copy()
        for token in rest:
            state.consume_token(token)
        return state

    def _restrict(self, state: Any, scores: np.ndarray) -> None:
        """Leave the tokens that may follow; if only an end may, it comes, however short the text is."""
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        allowed = np.zeros(len(scores), bool)
        if not state.is_stopped():
            bits = allocate_token_bitmask(1, len(scores))
            fill_next_token_bitmask(state, bits, 0)
            allowed = np.unpackbits(bits.view(np.uint8)[0], bitorder="little")[: len(scores)].astype(bool)
        must_end = allowed.sum() == allowed[self._ends].sum()
        scores[~allowed] = -np.inf
        if must_end:
            scores[self._ends] = 0
