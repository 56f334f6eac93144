"""The generation engine against transformers' generate: token for token, alone and in company."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from scipy.stats import chisquare
from tiny_bundles.generation_oracle import Record, generated

from sparktasks import Summarizer, TextGenerator, Translator
from sparktasks.ops import sampling
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.generation.generator import GeneratorOptions, Reading, open_generator

from .conftest import Bundles
from .generations import BEAMS, FAMILIES, GREEDY, KINDS, LAYOUTS, ROOM, generator, same, texts_of, written
from .texts import SHARED, needs_shared

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # of torch and its exporter
STORIES = SHARED / "models" / "stories260k"


@pytest.mark.parametrize("name", FAMILIES)
def test_families_write_what_transformers_writes(name: str, bundles: Bundles, prompts: list[str]) -> None:
    some = prompts if name in KINDS else prompts[::2]
    greedy = same(name, bundles.folder(name), bundles.twin(name), some, **GREEDY)
    beams = same(name, bundles.folder(name), bundles.twin(name), some, **BEAMS)
    assert len({records[0].ids for records in greedy}) > 0.9 * len(set(some))
    assert len({len(records[0].ids) for records in greedy}) > 5, "texts are to end at different lengths"
    assert sum(left[0].ids[:8] != right[0].ids[:8] for left, right in zip(greedy, beams, strict=True)) > 10


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_write_what_transformers_writes(name: str, bundles: Bundles, prompts: list[str]) -> None:
    same(name, bundles.folder(name), bundles.twin(name), prompts[:60], **GREEDY)
    same(name, bundles.folder(name), bundles.twin(name), prompts[:60], **BEAMS)


@needs_shared
def test_a_trained_model_writes_what_transformers_writes(prompts: list[str]) -> None:
    starts = [
        "Once upon a time",
        "Lily and Tom went to the park",
        "One day, a big dog",
        "The little girl was sad because",
        "Mom said",
    ]
    texts = [
        f"{start} {' '.join(prompt.split()[: place % 6])}".strip()
        for place, (start, prompt) in enumerate(zip(starts * 40, prompts, strict=False))
    ]
    same("stories260k", STORIES / "onnx", STORIES / "hf", texts, **{**GREEDY, "max_new_tokens": 40})
    same("stories260k", STORIES / "onnx", STORIES / "hf", texts, **{**BEAMS, "max_new_tokens": 40})


OPTIONS: dict[str, dict[str, Any]] = {
    "repetition penalty": {"repetition_penalty": 1.6},
    "no repeated pairs": {"no_repeat_ngram_size": 2},
    "no repeated tokens": {"no_repeat_ngram_size": 1},
    "the source favoured": {"encoder_repetition_penalty": 1.7},
    "favoured, but no pairs of it": {"encoder_repetition_penalty": 3.0, "encoder_no_repeat_ngram_size": 2},
    "no tokens of the source": {"encoder_no_repeat_ngram_size": 1},
    "pressed to end": {"exponential_decay_length_penalty": (3, 1.3)},
    "bad words": {"bad_words_ids": [[40], [60, 61], [100], [200], [201, 202, 203]]},
    "bias": {"sequence_bias": {(40,): 3.0, (60,): -5.0, (100, 101): 8.0, (300,): 4.0}},
    "least new tokens": {"min_new_tokens": 12},
    "least tokens": {"min_length": 20},
    "most tokens": {"max_length": 95, "max_new_tokens": None},
    "suppressed": {"suppress_tokens": list(range(20, 200, 3))},
    "suppressed at first": {"begin_suppress_tokens": list(range(5, 300))},
    "forced end": {"forced_eos_token_id": 2},
    "several ends": {"eos_token_id": [2, *range(30, 60)]},
    "everything": {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 4,
        "suppress_tokens": [7, 8, 9],
        "bad_words_ids": [[33]],
    },
}
BEAM_OPTIONS: dict[str, dict[str, Any]] = {
    "favours length": {"length_penalty": 2.5},
    "favours brevity": {"length_penalty": -1.0},
    "stops early": {"early_stopping": True},
    "never stops early": {"early_stopping": "never"},
    "never, with brevity": {"early_stopping": "never", "length_penalty": 0.0},
    "several texts": {"num_beams": 4, "num_return_sequences": 3},
    "several ends": {"eos_token_id": [2, *range(30, 60)]},
    "everything": {
        "early_stopping": True,
        "length_penalty": 1.4,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 3,
    },
}
PROCESSED = ["llama-text-generation", "t5-text2text-generation"]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", PROCESSED)
def test_processors_do_what_those_of_transformers_do(
    name: str, option: str, bundles: Bundles, prompts: list[str]
) -> None:
    some = prompts[:40]
    changed = same(name, bundles.folder(name), bundles.twin(name), some, **{**GREEDY, **OPTIONS[option]})
    assert changed != plain_records(bundles.twin(name), tuple(some)), "this option changes nothing: nothing was tested"


@lru_cache(maxsize=2)
def plain_records(twin: Path, texts: tuple[str, ...]) -> list[list[Record]]:
    """Return what greedy search generates with no other option."""
    return generated(twin, texts, **GREEDY)


@pytest.mark.parametrize("option", BEAM_OPTIONS)
@pytest.mark.parametrize("name", PROCESSED)
def test_beam_options_do_what_those_of_transformers_do(
    name: str, option: str, bundles: Bundles, prompts: list[str]
) -> None:
    same(name, bundles.folder(name), bundles.twin(name), prompts[:40], **{**BEAMS, **BEAM_OPTIONS[option]})


def test_a_forced_first_token_comes_first(bundles: Bundles, prompts: list[str]) -> None:
    name = "t5-text2text-generation"
    records = same(name, bundles.folder(name), bundles.twin(name), prompts[:40], **GREEDY, forced_bos_token_id=50)
    assert {record[0].ids[0] for record in records} == {50}


@pytest.mark.parametrize(
    "name", ["gpt2-text-generation", "llama-text-generation"]
)  # of encoder-decoders transformers 4.57 takes no stop strings
def test_stop_strings_stop_where_transformers_stops(name: str, bundles: Bundles, prompts: list[str]) -> None:
    some = prompts[:60]
    plain = generated(bundles.twin(name), some, **GREEDY)
    words = [
        word
        for records in plain
        for word in records[0].text.split()[1:3]
        if word.isascii() and word.isalpha() and len(word) > 2
    ]
    stops = sorted(set(words))[:6]
    tokenizer = hf.AutoTokenizer.from_pretrained(bundles.twin(name))
    wanted = generated(bundles.twin(name), some, **GREEDY, stop_strings=stops, tokenizer=tokenizer)
    found = written(generator(bundles.folder(name), **GREEDY, stop_strings=stops), some)
    assert [[record.ids for record in records] for records in wanted] == [
        [tuple(each.ids) for each in each_text] for each_text in found
    ]
    assert sum(left != right for left, right in zip(plain, wanted, strict=True)) > 5


# -- drawing


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda scores: sampling.keep_top_k(scores, 7), hf.TopKLogitsWarper(7)),
        (lambda scores: sampling.keep_top_k(scores, 2, keep=5), hf.TopKLogitsWarper(2, min_tokens_to_keep=5)),
        (lambda scores: sampling.keep_top_p(scores, 0.6), hf.TopPLogitsWarper(0.6)),
        (lambda scores: sampling.keep_top_p(scores, 0.01, keep=3), hf.TopPLogitsWarper(0.01, min_tokens_to_keep=3)),
        (lambda scores: sampling.keep_min_p(scores, 0.2), hf.MinPLogitsWarper(0.2)),
        (lambda scores: sampling.keep_min_p(scores, 0.9, keep=4), hf.MinPLogitsWarper(0.9, min_tokens_to_keep=4)),
        (lambda scores: sampling.keep_typical(scores, 0.5), hf.TypicalLogitsWarper(0.5)),
        (
            lambda scores: sampling.keep_typical(scores, 0.95, keep=3),
            hf.TypicalLogitsWarper(0.95, min_tokens_to_keep=3),
        ),
        (lambda scores: sampling.keep_epsilon(scores, 0.02), hf.EpsilonLogitsWarper(0.02)),
        (lambda scores: sampling.keep_epsilon(scores, 0.3, keep=3), hf.EpsilonLogitsWarper(0.3, min_tokens_to_keep=3)),
        (lambda scores: sampling.keep_eta(scores, 0.02), hf.EtaLogitsWarper(0.02)),
        (lambda scores: sampling.keep_eta(scores, 0.5, keep=2), hf.EtaLogitsWarper(0.5, min_tokens_to_keep=2)),
    ],
)
def test_filters_keep_what_those_of_transformers_keep(ours: Any, theirs: Any) -> None:
    scores = np.random.default_rng(3).normal(0, 2.5, size=(200, 120)).astype(np.float32)
    scores[:, ::17] = -np.inf
    wanted = theirs(torch.zeros((200, 1), dtype=torch.long), torch.tensor(scores)).numpy()
    ours(scores)
    assert np.array_equal(scores, wanted)
    assert len(set(np.isfinite(scores).sum(axis=1).tolist())) >= 1


DRAWS = 4000


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 0},
        {"temperature": 0.6, "top_k": 30},
        {"top_k": 0, "top_p": 0.7},
        {"top_k": 0, "min_p": 0.05},
        {"top_k": 0, "typical_p": 0.8},
    ],
)
@pytest.mark.parametrize("name", ["llama-text-generation", "t5-text2text-generation"])
def test_first_tokens_are_distributed_as_transformers_draws_them(
    name: str, options: dict[str, Any], bundles: Bundles, prompts: list[str]
) -> None:
    expected = np.exp(first_scores(bundles.twin(name), prompts[1], tuple(options.items())))
    model = generator(
        bundles.folder(name), max_new_tokens=1, do_sample=True, num_return_sequences=DRAWS, num_beams=1, **options
    )
    (made,) = model.run(model.prompts([prompts[1]]))
    assert not isinstance(made, Exception)
    counts = np.bincount([each.ids[0] for each in made], minlength=len(expected))
    assert counts[expected == 0].sum() == 0
    common = expected * DRAWS >= 5
    observed, wanted = (
        np.append(counts[common], counts[~common].sum()),
        np.append(expected[common], expected[~common].sum()) * DRAWS,
    )
    kept = wanted > 0
    assert chisquare(observed[kept], wanted[kept] / wanted[kept].sum() * DRAWS).pvalue > 1e-3
    assert kept.sum() > 3


@lru_cache(maxsize=32)
def first_scores(twin: Path, prompt: str, options: tuple[tuple[str, Any], ...]) -> np.ndarray:
    """Return transformers' log-probabilities of the first new token."""
    config = hf.AutoConfig.from_pretrained(twin)
    auto = hf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else hf.AutoModelForCausalLM
    network, tokenizer = auto.from_pretrained(twin).eval(), hf.AutoTokenizer.from_pretrained(twin)
    batch = tokenizer(prompt, return_tensors="pt")
    given = {key: batch[key] for key in ("input_ids", "attention_mask")}
    found = network.generate(
        **given,
        max_new_tokens=1,
        do_sample=True,
        num_beams=1,
        output_scores=True,
        return_dict_in_generate=True,
        **dict(options),
    )
    return np.asarray(found.scores[0][0].double().log_softmax(-1).numpy())


# -- the pipelines


@pytest.mark.parametrize(
    "name", ["gpt2-text-generation", "llama-text-generation", "qwen2-text-generation", "gemma-text-generation"]
)
@pytest.mark.parametrize("full", [True, False])
def test_text_generator_equals_the_pipeline(name: str, full: bool, bundles: Bundles, prompts: list[str]) -> None:
    """The pipeline removes spaces before punctuation, whatever the tokenizer's files say."""
    some = prompts[:60]
    pipe = hf.pipeline("text-generation", model=str(bundles.twin(name)))
    wanted = [
        [record["generated_text"] for record in pipe(text, return_full_text=full, max_new_tokens=16, do_sample=False)]
        for text in some
    ]
    stage = TextGenerator.pretrained(
        bundles.folder(name), maxNewTokens=16, doSample=False, returnFullText=full, cleanUpTokenizationSpaces=True
    )
    assert texts_of(stage, some) == wanted


TASKS = {
    "summarization": (Summarizer, "summary_text"),
    "translation": (Translator, "translation_text"),
    "text2text-generation": (TextGenerator, "generated_text"),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "name",
    [
        "t5-text2text-generation",
        "bart-text2text-generation",
        "pegasus-text2text-generation",
        "marian-text2text-generation",
    ],
)
def test_text_to_text_annotators_equal_the_removed_pipelines(
    name: str, task: str, bundles: Bundles, prompts: list[str]
) -> None:
    """Their defaults too: nothing is set but a limit that keeps this short."""
    cls, key = TASKS[task]
    some = prompts[:25]
    pipe = hf.pipeline(task, model=str(bundles.twin(name)))
    wanted = [[record[key] for record in pipe(text, max_new_tokens=20)] for text in some]
    assert texts_of(cls.pretrained(bundles.folder(name), maxNewTokens=20), some) == wanted


def test_task_specific_params_count_as_in_the_pipelines(bundles: Bundles, prompts: list[str], tmp_path: Path) -> None:
    name = "t5-text2text-generation"
    tasks = {
        "summarization": {
            "early_stopping": True,
            "length_penalty": 2.0,
            "max_length": 200,
            "min_length": 8,
            "no_repeat_ngram_size": 3,
            "num_beams": 4,
            "prefix": "summarize: ",
        },
        "translation_en_to_de": {
            "early_stopping": True,
            "max_length": 300,
            "num_beams": 2,
            "prefix": "translate English to German: ",
        },
    }
    network = hf.AutoModelForSeq2SeqLM.from_pretrained(bundles.twin(name))
    network.config.task_specific_params = {task: dict(values) for task, values in tasks.items()}
    tokenizer = hf.AutoTokenizer.from_pretrained(bundles.twin(name))
    bundle = open_bundle(bundles.folder(name))
    told = replace(bundle, config={**bundle.config, "task_specific_params": tasks})
    some = prompts[:20]
    for task, stage, key in (
        ("summarization", Summarizer(maxNewTokens=20), "summary_text"),
        ("translation_en_to_de", Translator(maxNewTokens=20, srcLang="en", tgtLang="de"), "translation_text"),
        ("translation_en_to_de", TextGenerator(maxNewTokens=20, task="translation_en_to_de"), "translation_text"),
    ):
        stage.setBundle(told)
        network.config.task_specific_params = {task: dict(values) for task, values in tasks.items()}
        pipe = hf.pipeline(task, model=network, tokenizer=tokenizer)
        wanted = [[record[key] for record in pipe(text, max_new_tokens=20)] for text in some]
        settings = stage.settings(task)
        model = open_generator(bundle, GeneratorOptions(settings, Reading(), ROOM))
        prefix = tasks[task]["prefix"]
        results = model.run(model.prompts([f"{prefix}{text}" for text in some]))
        assert [
            [model.decode(each.ids) for each in result] for result in results if not isinstance(result, Exception)
        ] == wanted


NLLB = "m2m_100-text2text-generation-nllb"
PAIRS = {
    "mbart-text2text-generation": ("en_XX", "fr_XX"),
    "m2m_100-text2text-generation": ("en", "fr"),
    NLLB: ("eng_Latn", "fra_Latn"),
}


def translations(twin: Path, codes: tuple[str, str], texts: Sequence[str]) -> list[list[str]]:
    """Return what transformers translates, framed by its own tokenizer wherever that knows languages."""
    network, tokenizer = hf.AutoModelForSeq2SeqLM.from_pretrained(twin).eval(), hf.AutoTokenizer.from_pretrained(twin)
    known = hasattr(tokenizer, "src_lang")
    source, target = (tokenizer.convert_tokens_to_ids(code if known else f"__{code}__") for code in codes)
    if known:
        tokenizer.src_lang = codes[0]
    found = []
    for text in texts:
        ids = (
            tokenizer(text)["input_ids"]
            if known
            else [source, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        )
        made = network.generate(
            torch.tensor([ids]), max_new_tokens=16, num_beams=4, forced_bos_token_id=target
        )  # as the pipeline
        found.append([tokenizer.decode(made[0], skip_special_tokens=True)])
    return found


@pytest.mark.parametrize(("name", "codes"), [*PAIRS.items(), (NLLB, ("deu_Latn", "eng_Latn"))])
def test_translator_tells_languages_as_transformers_does(
    name: str, codes: tuple[str, str], bundles: Bundles, prompts: list[str]
) -> None:
    wanted = translations(bundles.twin(name), codes, prompts[:40])
    stage = Translator.pretrained(bundles.folder(name), maxNewTokens=16, srcLang=codes[0], tgtLang=codes[1])
    assert texts_of(stage, prompts[:40]) == wanted


@pytest.mark.parametrize(
    ("name", "told"),
    [(NLLB, {"legacy_behaviour": True}), ("mbart-text2text-generation", {"tokenizer_class": "MBartTokenizer"})],
)
def test_languages_behind_the_text_are_told_as_transformers_does(
    name: str, told: dict[str, Any], bundles: Bundles, prompts: list[str], tmp_path: Path
) -> None:
    for place, source in (("bundle", bundles.folder(name)), ("twin", bundles.twin(name))):
        shutil.copytree(source, tmp_path / place)
        config = tmp_path / place / "tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | told))
    wanted = translations(tmp_path / "twin", PAIRS[name], prompts[:40])
    before = translations(bundles.twin(name), PAIRS[name], prompts[:40])
    assert sum(left != right for left, right in zip(wanted, before, strict=True)) > 20, (
        "the place of the language is to matter"
    )
    stage = Translator.pretrained(tmp_path / "bundle", maxNewTokens=16, srcLang=PAIRS[name][0], tgtLang=PAIRS[name][1])
    assert texts_of(stage, prompts[:40]) == wanted
