"""Greedy generation of texts of skewed lengths: continuous batching against static batches and against transformers.

    python scripts/bench/generation.py                          # both shapes, into docs/bench/generation.md
    python scripts/bench/generation.py --shapes gpt2-6x512      # the small one

The texts are `texts()`: prompts of 4 to 40 random tokens, and outputs of 8 tokens and more, exponentially distributed
with a mean of 40 beyond them, at most 256; the end token is switched off, so that lengths are what they are set to.
Every contender gets the same texts and threads; only tokens that were asked for count. In each round every contender
runs all texts.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from common import Spread, generation_arguments, ratios, seconds, write_generation_page
from decoders import SHAPES, VOCABULARY, DecoderModel, decoder

from sparktasks.runtime import threads
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.generation.decoder import Decoder
from sparktasks.runtime.generation.scheduler import BatchLimits, Scheduler
from sparktasks.runtime.generation.search import Generated, Request, Rules
from sparktasks.runtime.generation.settings import Settings
from sparktasks.runtime.session import tensor

LONGEST = 256


def texts(count: int, shared: int = 0) -> list[Request]:
    """Return what is to be generated: prompts, the first ``shared`` tokens equal, and how many tokens each is to
    get."""
    random.seed(0)
    head = np.random.RandomState(0).randint(3, VOCABULARY, size=shared).tolist()
    made = []
    for number in range(count):
        prompt = np.random.RandomState(number).randint(3, VOCABULARY, size=random.randint(4, 40)).tolist()
        made.append(Request(tuple(head + prompt), limit=int(min(LONGEST, 8 + random.expovariate(1 / 40)))))
    return made


@dataclass(frozen=True)
class Contender:
    """A way of generating: returns each text's new tokens."""

    name: str
    setting: str
    run: Callable[[], list[list[int]]]


def scheduled(model: Decoder, requests: Sequence[Request], slots: int) -> list[list[int]]:
    """Generate with the scheduler."""
    scheduler = Scheduler(model, Rules(Settings(), [], None), BatchLimits(slots, 1 << 20, 512))
    return [_ids(result) for result in scheduler.run(requests)]


def _ids(result: list[Generated] | Exception) -> list[int]:
    if isinstance(result, Exception):
        raise result
    return result[0].ids


def static(model: Decoder, requests: Sequence[Request], slots: int) -> list[list[int]]:
    """Generate in batches that last as long as their longest text, with the same decoder."""
    made: list[list[int]] = []
    for start in range(0, len(requests), slots):
        part = requests[start : start + slots]
        logits, batch = model.start([request.prompt for request in part], [])
        rows = []
        for _ in range(max(request.limit for request in part) - 1):
            rows.append(logits.argmax(axis=-1))
            batch.history.append(rows[-1])
            logits = model.step(batch)
        rows.append(logits.argmax(axis=-1))
        made.extend([int(row[place]) for row in rows][: request.limit] for place, request in enumerate(part))
    return made


def transformers(folder: Path, slots: int) -> Callable[[Sequence[Request]], list[list[int]]]:
    """Generate with transformers, in batches padded at the left that last as long as their longest text."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads.count())
    network = AutoModelForCausalLM.from_pretrained(folder).eval()

    def run(requests: Sequence[Request]) -> list[list[int]]:
        made: list[list[int]] = []
        for start in range(0, len(requests), slots):
            part = requests[start : start + slots]
            width, most = max(len(request.prompt) for request in part), max(request.limit for request in part)
            ids = torch.zeros((len(part), width), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, request in enumerate(part):
                ids[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
                mask[row, width - len(request.prompt) :] = 1
            with torch.inference_mode():
                found = network.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=most, do_sample=False, pad_token_id=0
                )
            made.extend(found[row, width : width + request.limit].tolist() for row, request in enumerate(part))
        return made

    return run


def step_costs(model: Decoder, rows: int, columns: int, times: int) -> tuple[list[float], list[float]]:
    """Time decode steps as the scheduler runs them, and bare runs of the same feeds: seconds of each, alternating."""
    requests = [
        Request(tuple(np.random.RandomState(row).randint(3, VOCABULARY, size=columns).tolist()), limit=1 << 20)
        for row in range(rows)
    ]
    scheduler = Scheduler(model, Rules(Settings(), [], None), BatchLimits(rows, 1 << 30, 1 << 20))
    logits, batch = model.start([request.prompt for request in requests], [])
    search = scheduler.search(requests)
    search.advance(logits, batch)
    session = model._step_session
    assert session is not None
    ours, bare = [], []
    for _ in range(times):
        feeds = model._feeds(session, batch, batch.history.width - 1, batch.history.width, is_prompt=False)
        arrays = {name: np.array(value.numpy()) for name, value in feeds.items()}
        values = {name: tensor(array) for name, array in arrays.items()}
        outputs = ["logits", *(slot.present for slot in model.slots)]
        bare.append(seconds(lambda values=values, outputs=outputs: session.run_tensors(values, outputs)))
        ours.append(seconds(lambda: search.advance(model.step(batch), batch)))
    return ours, bare


@dataclass
class Measured:
    """What a contender did: tokens a second of each round, and the share of texts that equal the first contender's."""

    rates: list[float]
    same: float = 0.0


def measure(contenders: Sequence[Contender], rounds: int) -> dict[str, Measured]:
    """Run the contenders in turn."""
    measured = {contender.name: Measured([]) for contender in contenders}
    wanted: list[list[int]] | None = None
    for number in range(rounds):
        for contender in contenders:
            found: list[list[int]] = []
            taken = seconds(lambda contender=contender, found=found: found.extend(contender.run()))
            wanted = wanted or found
            result = measured[contender.name]
            result.same = sum(left == right for left, right in zip(wanted, found, strict=True)) / len(found)
            result.rates.append(sum(map(len, found)) / taken)
            print(
                (
                    f"round {number + 1}: {contender.name} {result.rates[-1]:.1f} tokens/s, {result.same:.0%} of "
                    "the texts the same"
                ),
                flush=True,
            )
    return measured


def table(contenders: Sequence[Contender], measured: dict[str, Measured], requests: Sequence[Request]) -> str:
    """Write the results of one shape."""
    ours, lengths = contenders[0].name, [request.limit for request in requests]
    quartiles = " / ".join(f"{value:.0f}" for value in np.percentile(lengths, (25, 50, 75)))
    head = f"{len(requests)} texts of {min(lengths)} to {max(lengths)} new tokens, quartiles {quartiles}.\n"
    head += f"\n| | tokens/s | {ours} is faster by | same texts | setting |\n|---|---|---|---|---|\n"
    for each in contenders:
        found = measured[each.name]
        faster = "" if each.name == ours else str(ratios(measured[ours].rates, found.rates))
        head += f"| {each.name} | {Spread.of(found.rates)} | {faster} | {found.same:.0%} | {each.setting} |\n"
    return head


def shape_report(name: str, model: DecoderModel, options: argparse.Namespace) -> str:
    """Measure one shape."""
    bundle = open_bundle(model.bundle)
    engine = Decoder(bundle)
    requests, slots = texts(options.texts), options.slots
    peer, peer_wide = transformers(model.torch, slots), transformers(model.torch, 4 * slots)
    contenders = [
        Contender("continuous", f"{slots} texts at once", lambda: scheduled(engine, requests, slots)),
        Contender(
            "continuous, 4 times as many", f"{4 * slots} texts at once", lambda: scheduled(engine, requests, 4 * slots)
        ),
        Contender("static", f"batches of {slots}, the same decoder", lambda: static(engine, requests, slots)),
        Contender("transformers", f"generate, batches of {slots}", lambda: peer(requests)),
        Contender("transformers, 4 times as many", f"generate, batches of {4 * slots}", lambda: peer_wide(requests)),
    ]
    if not options.peers:
        contenders = contenders[:3]
    report = f"\n## {name}\n\n{SHAPES[name]}, vocabulary {VOCABULARY:,}, random weights, fp32.\n"
    report += table(contenders, measure(contenders, options.rounds), requests)
    ours, bare = step_costs(engine, slots, 128, 128)
    share, extra = ratios(ours, bare), Spread.of([(left - right) * 1e6 for left, right in zip(ours, bare, strict=True)])
    report += (
        f"\nA step of {slots} texts with 128 to 256 tokens in the cache takes {share} times a bare run of the "
        "same feeds: "
    )
    report += f"{extra} microseconds more.\n"
    return report + prefix_report(engine, options)


def prefix_report(engine: Decoder, options: argparse.Namespace) -> str:
    """Measure prompts that share their beginning, with and without reading it once."""
    requests = [replace(request, limit=8) for request in texts(options.texts, shared=options.shared)]
    once, each = [], []
    for _ in range(options.rounds):
        once.append(seconds(lambda: scheduled(engine, requests, options.slots)))
        scheduler = Scheduler(engine, Rules(Settings(), [], None), BatchLimits(options.slots, 1 << 20, 512))
        scheduler.prefixes.find = lambda prompts: [None] * len(prompts)  # type: ignore[method-assign]
        each.append(seconds(lambda scheduler=scheduler: scheduler.run(requests)))
    return (
        f"\n{len(requests)} prompts that share their first {options.shared} tokens, 8 new tokens each: "
        f"read once, the whole takes {Spread.of(once)} s; read for each, {ratios(each, once)} times that.\n"
    )


def main() -> None:
    """Run the command line."""
    parser = generation_arguments(__doc__, "generation")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--shared", type=int, default=200)
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="leave transformers out")
    options = parser.parse_args()
    threads.use(options.threads)
    reports = [shape_report(name, decoder(name, options.models), options) for name in options.shapes]
    write_generation_page(options, "Generation: tokens a second", reports)


if __name__ == "__main__":
    main()
