"""Generators in other forms than Optimum's of today, and what is told about texts: scores and counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from tiny_bundles.generation import BY_NAME
from tiny_bundles.generation_oracle import end_ids, generated, traced, twin_of

from sparktasks import TextGenerator
from sparktasks.errors import BundleError, ParamError
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.generation.decoder import Decoder
from sparktasks.runtime.generation.scheduler import BatchLimits
from sparktasks.runtime.quantize import quantize
from sparktasks.runtime.session import open_session, view

from .conftest import Bundles
from .generations import (
    BEAMS,
    CAPACITIES,
    FAMILIES,
    GREEDY,
    HALVES,
    annotated,
    chosen,
    generator,
    log_probabilities,
    written,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # of torch and its exporter
EMBEDS = "llama-text-generation-embeds"
NEAR = 0.02  # of two logits, so close that float16 may take the other
EXACT = 1e-4
ROUNDED = 1e-2
SHORT = {"maxNewTokens": 24, "numBeams": 1, "doSample": False}


# -- decoders that take vectors


def test_vectors_of_long_prompts_are_read_in_pieces(bundles: Bundles, prompts: list[str]) -> None:
    wanted = generated(bundles.twin(EMBEDS), prompts[:60], **GREEDY)
    model = generator(bundles.folder(EMBEDS), BatchLimits(4, 600, 7), **GREEDY)
    assert max(len(prompt.ids) for prompt in model.prompts(prompts[:60])) > 5 * 7
    assert [[record.ids for record in records] for records in wanted] == [
        [tuple(each.ids) for each in made] for made in written(model, prompts[:60])
    ]


def test_vectors_come_from_the_graph_beside_the_decoder(bundles: Bundles) -> None:
    decoder = Decoder(open_bundle(bundles.folder(EMBEDS)))
    assert decoder.layout.embed is not None
    assert "input_ids" not in open_session(decoder.layout.prompt_graph).inputs
    vectors = decoder.layout.embed.graph.outputs[0]
    assert (vectors.name, decoder.layout.extends, decoder.layout.merged) == ("inputs_embeds", True, False)


# -- float16


def disputed(logits: torch.Tensor, ids: Sequence[int], found: Sequence[int]) -> float:
    """Return by how much the best logit leads that of the first token that another text has; 0 where the texts are
    equal."""
    place = next((place for place, (left, right) in enumerate(zip(ids, found, strict=False)) if left != right), None)
    if place is None:
        return 0.0 if len(ids) == len(found) else float("inf")
    return float(logits[place].max() - logits[place, found[place]])


@pytest.mark.parametrize("name", HALVES)
def test_float16_writes_what_float32_writes_until_two_tokens_are_as_good(
    name: str, bundles: Bundles, prompts: list[str]
) -> None:
    wanted = traced(bundles.twin(name), prompts, **GREEDY)
    for capacity in CAPACITIES:
        found = [made[0] for made in written(generator(bundles.folder(name), capacity, **GREEDY), prompts)]
        pairs = list(zip(wanted, found, strict=True))
        assert max(disputed(logits, ids, made.ids) for (ids, logits), made in pairs) < NEAR
        equal = [
            (float(chosen(logits, ids).mean()), made.score) for (ids, logits), made in pairs if ids == tuple(made.ids)
        ]
        assert len(equal) >= 0.9 * len(prompts)
        assert max(abs(true - score) for true, score in equal) < ROUNDED


@pytest.mark.parametrize("name", HALVES)
def test_float16_searches_with_beams_as_float32_does(name: str, bundles: Bundles, prompts: list[str]) -> None:
    """A beam that rounding drops changes a text for good: most are equal, and all are as likely as is said."""
    wanted = generated(bundles.twin(name), prompts, **BEAMS)
    found = [made[0] for made in written(generator(bundles.folder(name), **BEAMS), prompts)]
    assert sum(records[0].ids == tuple(made.ids) for records, made in zip(wanted, found, strict=True)) >= 0.9 * len(
        prompts
    )
    true = [
        float(log_probabilities(bundles.twin(name), text, made.ids).mean())
        for text, made in zip(prompts, found, strict=True)
    ]
    assert np.abs(np.array(true) - [made.score for made in found]).max() < ROUNDED


@pytest.mark.parametrize("name", HALVES)
def test_a_float16_cache_stays_float16(name: str, bundles: Bundles) -> None:
    bundle = open_bundle(bundles.folder(name), precision="fp16")
    assert {Path(file).name for file in bundle.graphs} == set(BY_NAME[name].files)
    decoder = Decoder(bundle)
    assert {(slot.dtype, open_session(bundle).inputs[slot.past]) for slot in decoder.slots} == {
        (np.float16, np.float16)
    }
    source = decoder.encode([[40, 50, 60, 1], [70, 1]], 0) if decoder.layout.encoder else []
    rows = [[0, 80, 90], [0, 95]] if source else [[40, 50, 60], [70]]
    logits, batch = decoder.start(rows, source)
    tokens = logits.argmax(axis=-1)
    batch.history.append(tokens)
    after = decoder.step(batch)
    afresh, _ = decoder.start([[*row, token] for row, token in zip(rows, tokens.tolist(), strict=True)], source)
    assert (logits.dtype, after.dtype) == (np.float32, np.float32)
    assert {view(value).dtype for value in batch.cache} == {np.dtype(np.float16)}
    assert np.abs(after - afresh).max() < NEAR


def test_precision_chooses_among_a_folders_decoders(bundles: Bundles, prompts: list[str], tmp_path: Path) -> None:
    shutil.copytree(bundles.folder("gpt2-text-generation"), tmp_path / "both")
    (tmp_path / "both" / "onnx").mkdir()
    shutil.copy(bundles.folder("gpt2-text-generation-fp16") / "onnx" / "model_fp16.onnx", tmp_path / "both" / "onnx")
    asked = {
        precision: open_bundle(tmp_path / "both", precision=precision).model for precision in ("auto", "fp32", "fp16")
    }
    assert asked == {"auto": "model.onnx", "fp32": "model.onnx", "fp16": "onnx/model_fp16.onnx"}
    stages = [
        TextGenerator.pretrained(tmp_path / "both", precision=precision, **SHORT) for precision in ("fp32", "fp16")
    ]
    full, half = ([row[0].score for row in annotated(stage, prompts[:20])] for stage in stages)
    assert full != half
    assert np.allclose(full, half, atol=ROUNDED)


def test_float16_weights_are_not_quantised(bundles: Bundles, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="float16 weights"):
        quantize(open_bundle(bundles.folder("gpt2-text-generation-fp16")), tmp_path / "made")
    assert not (tmp_path / "made").exists()


# -- scores and counts


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_the_mean_log_probabilities_of_all_new_tokens(
    name: str, bundles: Bundles, prompts: list[str]
) -> None:
    wanted = traced(bundles.twin(name), prompts[:20], **GREEDY)
    found = [made[0] for made in written(generator(bundles.folder(name), **GREEDY), prompts[:20])]
    assert [tuple(made.ids) for made in found] == [ids for ids, _ in wanted]
    true = [float(chosen(logits, ids).mean()) for ids, logits in wanted]
    assert np.abs(np.array(true) - [made.score for made in found]).max() < EXACT
    assert np.ptp(true) > 0.1


@pytest.mark.parametrize("name", ["llama-text-generation", "bart-text2text-generation", "m2m_100-text2text-generation"])
def test_scores_of_beams_are_what_the_network_says_of_their_tokens(
    name: str, bundles: Bundles, prompts: list[str]
) -> None:
    """Of forced tokens too: that they are forced does not make them likely."""
    found = written(generator(bundles.folder(name), **BEAMS, num_return_sequences=3), prompts[:20])
    true = [
        [float(log_probabilities(bundles.twin(name), text, made.ids).mean()) for made in row]
        for text, row in zip(prompts, found, strict=False)
    ]
    assert np.shape(true) == (20, 3)
    assert np.abs(np.array(true) - [[made.score for made in row] for row in found]).max() < EXACT


@pytest.mark.parametrize("name", ["llama-text-generation", "bart-text2text-generation"])
def test_annotations_tell_scores_counts_and_why_a_text_ends(name: str, bundles: Bundles, prompts: list[str]) -> None:
    network, tokenizer = twin_of(bundles.twin(name))
    ends, forced = (end_ids(getattr(network.generation_config, key)) for key in ("eos_token_id", "forced_eos_token_id"))
    wanted = []
    for text, (ids, logits) in zip(prompts[:40], traced(bundles.twin(name), prompts[:40], **GREEDY), strict=True):
        ended = ids[-1] in ends and not (forced and len(ids) == GREEDY["max_new_tokens"])
        wanted.append(
            (
                len(tokenizer(text)["input_ids"]),
                len(ids),
                "eos" if ended else "length",
                float(chosen(logits, ids).mean()),
            )
        )
    items = [row[0] for row in annotated(TextGenerator.pretrained(bundles.folder(name), **SHORT), prompts[:40])]
    counted = [
        (int(item.metadata["prompt_tokens"]), int(item.metadata["new_tokens"]), item.metadata["finish_reason"])
        for item in items
    ]
    assert counted == [each[:3] for each in wanted]
    assert np.allclose([item.score for item in items], [each[3] for each in wanted], atol=EXACT)
    assert {each[2] for each in wanted} == {"eos", "length"}


# -- folders as people have them


def test_attention_that_counts_the_masks_ones_has_rows_that_begin_left(bundles: Bundles) -> None:
    decoder = Decoder(open_bundle(bundles.folder("llama-text-generation-grouped")))
    assert (decoder.layout.aligns, decoder.layout.extends) == (True, True)
    assert (decoder.slots[0].shape, decoder.slots[0].begins_left) == ((-1, 2, -2, 16), True)
    rows = [[40, 50, 60, 70, 80], [70], [90, 95]]
    logits, batch = decoder.start(rows, [])
    batch.history.append(logits.argmax(axis=-1))
    after = decoder.step(batch)
    for row, (ids, before, later) in enumerate(zip(rows, logits, after, strict=True)):
        alone, single = decoder.start([ids], [])
        assert np.abs(alone[0] - before).max() < EXACT
        assert view(batch.cache[0])[row, :, : len(ids)].tobytes() == view(single.cache[0])[0, :, : len(ids)].tobytes()
        single.history.append(alone.argmax(axis=-1))
        assert np.abs(decoder.step(single)[0] - later).max() < EXACT


def test_rows_that_begin_left_share_a_beginning(bundles: Bundles, prompts: list[str]) -> None:
    name, head = (
        "llama-text-generation-grouped",
        "Answer in one word what the following review is about, and say nothing else. ",
    )
    texts = [head + prompt for prompt in prompts[:40]]
    model = generator(bundles.folder(name), BatchLimits(8, 1200, 32), **GREEDY)
    prefixes = model._scheduler.prefixes.find([prompt.ids for prompt in model.prompts(texts)])
    assert all(prefix is not None and prefix.tokens > 16 for prefix in prefixes)
    wanted = generated(bundles.twin(name), texts, **GREEDY)
    assert [[record.ids for record in records] for records in wanted] == [
        [tuple(each.ids) for each in made] for made in written(model, texts)
    ]


def test_a_folder_with_genai_config_generates_like_any_other(bundles: Bundles, prompts: list[str]) -> None:
    name = "llama-text-generation-grouped"
    assert not (bundles.folder(name) / "config.json").exists()
    wanted = [records[0] for records in generated(bundles.twin(name), prompts[:40], **GREEDY)]
    found = [row[0] for row in annotated(TextGenerator.pretrained(bundles.folder(name), **SHORT), prompts[:40])]
    assert [int(item.metadata["new_tokens"]) for item in found] == [len(record.ids) for record in wanted]
    assert {item.metadata["finish_reason"] for item in found} == {"eos", "length"}
    with pytest.raises(ParamError, match="knows 256 positions"):
        TextGenerator.pretrained(bundles.folder(name), maxNewTokens=400).kernel()


@pytest.mark.parametrize(("name", "beside"), [("t5-text2text-generation", "encoder_model"), (EMBEDS, "embed_tokens")])
def test_graphs_of_unlike_precisions_run_together(
    name: str, beside: str, bundles: Bundles, prompts: list[str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundles.folder(name), tmp_path / "mixed"))
    (path,) = folder.rglob(f"{beside}.onnx")
    onnx.save_model(convert_float_to_float16(onnx.load(path)), path)
    wanted = generated(bundles.twin(name), prompts[:20], **GREEDY)
    found = written(generator(folder, **GREEDY), prompts[:20])
    assert sum(records[0].ids == tuple(made[0].ids) for records, made in zip(wanted, found, strict=True)) >= 15


def test_positions_of_three_axes_are_alike_for_text(bundles: Bundles, prompts: list[str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundles.folder(EMBEDS), tmp_path / "axes"))
    (path,) = folder.rglob("decoder_model_merged.onnx")
    model = onnx.load(path)
    (places,) = (port for port in model.graph.input if port.name == "position_ids")
    names = [dim.dim_param for dim in places.type.tensor_type.shape.dim]
    places.CopyFrom(onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, [3, *names]))
    for node in model.graph.node:
        node.input[:] = ["one_axis" if name == "position_ids" else name for name in node.input]
    axis = onnx.numpy_helper.from_array(np.array(2), "axis_index")
    model.graph.initializer.append(axis)
    model.graph.node.insert(0, onnx.helper.make_node("Gather", ["position_ids", "axis_index"], ["one_axis"], axis=0))
    onnx.save_model(model, path)
    wanted = generated(bundles.twin(EMBEDS), prompts[:20], **GREEDY)
    assert [[record.ids for record in records] for records in wanted] == [
        [tuple(each.ids) for each in made] for made in written(generator(folder, **GREEDY), prompts[:20])
    ]


def test_what_a_text_config_says_counts(bundles: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundles.folder(EMBEDS), tmp_path / "nested"))
    config = json.loads((folder / "config.json").read_text())
    outer = {"model_type": "llava", "text_config": config | {"eos_token_id": 2}}
    (folder / "config.json").write_text(json.dumps(outer))
    (folder / "generation_config.json").unlink()
    assert TextGenerator.pretrained(folder).settings().eos_token_id == (2,)
    with pytest.raises(ParamError, match="knows 256 positions"):
        TextGenerator.pretrained(folder, maxNewTokens=400).kernel()


def test_a_tokenizer_that_does_not_fit_the_table_of_vectors_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundles.folder(EMBEDS), tmp_path / "other"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({"id": 5000, "content": "more", "special": False})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BundleError, match=r"token ids up to 5000, but the embedding in .*embed_tokens\.onnx"):
        TextGenerator.pretrained(folder)
