"""Greedy generation of texts of skewed lengths: sparktasks against onnxruntime-genai, on the same weights of Llama's
shape.

    python scripts/bench/genai.py                          # into docs/bench/genai.md

onnxruntime-genai runs graphs of its own builder, so that one must be built first, from the checkpoint that the first
run of this script leaves. The builder wants a newer transformers than the other scripts, hence an environment of its
own:

    pip install onnxruntime-genai onnx-ir torch "transformers>=5" python -m onnxruntime_genai.models.builder -i
    build/bench/llama-6x512/torch -o build/bench/llama-6x512/genai -p fp32 -e cpu

The texts are those of generation.py. onnxruntime-genai runs in its two documented ways: static batches of its
Generator, and its Engine, to which texts are given as others end. Needs: pip install onnxruntime-genai
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import generation_arguments, write_generation_page
from decoders import LLAMA, VOCABULARY, decoder
from generation import Contender, measure, scheduled, table, texts

from sparktasks.runtime import threads
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.generation.decoder import Decoder
from sparktasks.runtime.generation.search import Request

NAME = "llama-6x512"
NOTE = """
The Generator pads shorter prompts at the left, which the attention node of these graphs takes for tokens: only texts of
the longest prompt of each batch are right.
"""
END = VOCABULARY - 1


def opened(folder: Path, slots: int | None = None) -> Any:
    """Open a model; ``slots`` makes it one for the Engine."""
    import onnxruntime_genai

    config = onnxruntime_genai.Config(str(folder))
    settings: dict[str, Any] = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads.count()}}}}
    if slots is not None:
        settings["engine"] = {"static_batching": {"max_batch_size": slots}}
    config.overlay(json.dumps(settings))
    return onnxruntime_genai.Model(config)


def batched(model: Any, requests: Sequence[Request], slots: int) -> list[list[int]]:
    """Generate in batches padded at the left, each as long as its longest text."""
    import onnxruntime_genai

    made: list[list[int]] = []
    for start in range(0, len(requests), slots):
        part = requests[start : start + slots]
        width, most = max(len(request.prompt) for request in part), max(request.limit for request in part)
        ids = np.full((len(part), width), END, np.int32)
        for row, request in zip(ids, part, strict=True):
            row[width - len(request.prompt) :] = request.prompt
        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(
            max_length=width + most, min_length=width + most, batch_size=len(part), do_sample=False
        )
        generator = onnxruntime_genai.Generator(model, params)
        generator.append_tokens(ids)
        while not generator.is_done():
            generator.generate_next_token()
        made.extend(
            generator.get_sequence(place)[width : width + request.limit].tolist() for place, request in enumerate(part)
        )
    return made


def engined(model: Any, requests: Sequence[Request], slots: int) -> list[list[int]]:
    """Generate with the Engine, as many texts at once as there are slots."""
    import onnxruntime_genai

    engine = onnxruntime_genai.Engine(model)
    buffer, waiting = engine.create_event_buffer(256), list(enumerate(requests))[::-1]
    made: list[list[int]] = [[] for _ in requests]
    running: dict[int, Any] = {}
    flags = onnxruntime_genai.EngineEventFlags
    while waiting or running:
        while waiting and len(running) < slots:
            number, request = waiting.pop()
            running[number] = engine.create_request(options=onnxruntime_genai.RequestOptions())
            turn = onnxruntime_genai.TurnOptions(running[number])
            turn.set_do_sample(False)
            turn.set_max_generated_tokens(request.limit)
            turn.set_min_generated_tokens(request.limit)
            running[number].begin_turn(np.array(request.prompt, np.int32), turn)
        for event in engine.run(buffer) or ():
            number = next(
                key for key, request in running.items() if request is event.request or request == event.request
            )
            if event.flags.value & flags.FAILED.value:
                raise RuntimeError(f"text {number} failed: {event.error_code}")
            if event.flags.value & flags.TOKEN.value:
                made[number].append(event.token)
            if event.flags.value & flags.TURN_FINISHED.value:
                running.pop(number).close()
    return made


def main() -> None:
    """Run the command line."""
    parser = generation_arguments(__doc__, "genai", texts=40)
    parser.add_argument("--slots", type=int, default=8)
    options = parser.parse_args()
    threads.use(options.threads)
    optimum, built = decoder(NAME, options.models).bundle, options.models / NAME / "genai"
    if not (built / "genai_config.json").is_file():
        parser.error(f"{built} is not there: build it as this script's help says")
    requests, slots = texts(options.texts), options.slots
    ours, ours_built = Decoder(open_bundle(optimum)), Decoder(open_bundle(built))
    model, engine = opened(built), opened(built, slots)
    contenders = [
        Contender("sparktasks", f"{slots} texts at once, Optimum's graph", lambda: scheduled(ours, requests, slots)),
        Contender(
            "sparktasks, genai's graph", f"{slots} texts at once", lambda: scheduled(ours_built, requests, slots)
        ),
        Contender("genai, Generator", f"batches of {slots}, genai's graph", lambda: batched(model, requests, slots)),
        Contender("genai, Engine", f"{slots} texts at once, genai's graph", lambda: engined(engine, requests, slots)),
    ]
    head = f"\n## {NAME}\n\n{LLAMA[NAME]}, vocabulary {VOCABULARY:,}, random weights, fp32.\n"
    found = table(contenders, measure(contenders, options.rounds), requests)
    write_generation_page(options, "Generation: sparktasks and onnxruntime-genai", [head, found, NOTE])


if __name__ == "__main__":
    main()
