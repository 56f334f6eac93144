"""Which graphs of a folder make the model: layouts, precisions for all graphs or for each, several files of data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import onnx
import pytest

from sparktasks import DocumentAssembler, LocalPipeline, TextGenerator, Translator
from sparktasks.errors import BundleError, ParamError
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.layouts import AUDIO, EMBED, LAYOUTS, PRECISIONS, VISION, graph_files
from sparktasks.runtime.quantize import quantize

BERT, GPT2, T5 = "bert-text-classification", "gpt2-text-generation", "t5-text2text-generation"
Variants = Callable[[Iterable[str]], Path]


@pytest.fixture
def variants(bundle: Callable[[str], str], tmp_path: Path) -> Variants:
    """Make a folder whose onnx/ has graphs of these names, all of them copies of one."""

    def make(names: Iterable[str], source: str = BERT) -> Path:
        folder = Path(shutil.copytree(bundle(source), tmp_path / "variants"))
        (folder / "onnx").mkdir()
        graph = next(iter(sorted(folder.glob("*.onnx"))))
        for name in names:
            shutil.copy(graph, folder / "onnx" / f"{name}.onnx")
        for path in folder.glob("*.onnx"):
            path.unlink()
        return folder

    return make


def graphs(folder: Path, **options: Any) -> list[str]:
    return [Path(name).stem for name in open_bundle(folder, **options).graphs]


def test_no_two_precisions_share_a_suffix() -> None:
    suffixes = [suffix for precision in PRECISIONS.values() for suffix in precision]
    assert len(suffixes) == len(set(suffixes))


# -- layouts

VLM = ["decoder_model_merged", "embed_tokens", "vision_encoder", "audio_encoder"]


@pytest.mark.parametrize(
    ("names", "roles", "expected"),
    [
        (["model"], None, ["model"]),
        (["text_model", "vision_model"], None, ["text_model"]),
        (["text_model", "vision_model"], (VISION,), ["text_model", "vision_model"]),
        (["text_model", "audio_model"], (AUDIO,), ["text_model", "audio_model"]),
        (["model", "text_model", "vision_model"], (VISION,), ["model"]),
        (VLM, None, ["decoder_model_merged", "embed_tokens"]),
        (VLM, (EMBED, VISION), ["decoder_model_merged", "embed_tokens", "vision_encoder"]),
        (VLM, (EMBED, VISION, AUDIO), VLM),
        (
            ["encoder_model", "decoder_model", "decoder_with_past_model", "decoder_model_merged"],
            None,
            ["decoder_model_merged", "encoder_model"],
        ),
        (
            ["encoder_model", "decoder_model", "decoder_with_past_model"],
            None,
            ["decoder_model", "encoder_model", "decoder_with_past_model"],
        ),
    ],
)
def test_a_layout_has_the_graphs_of_the_roles_that_are_asked_for(
    names: list[str], roles: tuple[str, ...] | None, expected: list[str], variants: Variants
) -> None:
    folder = variants(names)
    assert graphs(folder, **({} if roles is None else {"roles": roles})) == expected


# -- precisions

SEVERAL = [
    *("decoder_model_merged", "decoder_model_merged_fp16", "decoder_model_merged_q4", "decoder_model_merged_bnb4"),
    *("encoder_model", "encoder_model_fp16", "encoder_model_quantized"),
]


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("auto", ["decoder_model_merged", "encoder_model"]),
        ("fp32", ["decoder_model_merged", "encoder_model"]),
        ("fp16", ["decoder_model_merged_fp16", "encoder_model_fp16"]),
        ("int4", ["decoder_model_merged_q4", "encoder_model"]),
        ({"decoder_model_merged": "int4", "encoder_model": "fp32"}, ["decoder_model_merged_q4", "encoder_model"]),
        (
            {"decoder_model_merged": "int4", "encoder_model": "int8"},
            ["decoder_model_merged_q4", "encoder_model_quantized"],
        ),
        ({"encoder_model": "fp16"}, ["decoder_model_merged", "encoder_model_fp16"]),
        ({"decoder_model_merged": "fp16"}, ["decoder_model_merged_fp16", "encoder_model_fp16"]),
        (
            {"decoder_model_merged": "fp16", "encoder_model": "auto"},
            ["decoder_model_merged_fp16", "encoder_model_fp16"],
        ),
        ({}, ["decoder_model_merged", "encoder_model"]),
    ],
)
def test_each_graph_has_the_precision_that_is_asked_for(
    precision: str | dict[str, str], expected: list[str], variants: Variants
) -> None:
    assert graphs(variants(SEVERAL), precision=precision) == expected


@pytest.mark.parametrize("suffix", ["_int4", "_q4", "_q4f16", "_bnb4"])
def test_int4_is_found_under_all_its_names(suffix: str, variants: Variants) -> None:
    folder = variants(["model", f"model{suffix}", "model_fp16"])
    assert graphs(folder, precision="int4") == [f"model{suffix}"]


def test_the_only_variant_of_a_graph_is_taken(variants: Variants) -> None:
    assert graphs(variants(["decoder_model_merged_q4", "encoder_model_fp16"])) == [
        "decoder_model_merged_q4",
        "encoder_model_fp16",
    ]


@pytest.mark.parametrize(
    ("precision", "kind", "message"),
    [
        ("int2", ParamError, "precision='int2' is not allowed: it takes 'auto', 'fp32', 'fp16', 'bf16', 'int8', "),
        ({"encoder_model": "int2"}, ParamError, "'int2'} is not allowed: it takes 'auto', 'fp32'"),
        ({"encoder": "int4"}, ParamError, "there is no graph 'encoder'. Did you mean 'encoder_model'"),
        ({"encoder_model": "int8w"}, BundleError, "has no encoder_model in int8w. ONNX files there: 'onnx/decoder"),
        ({"decoder_model_merged": "bf16"}, BundleError, "has no ONNX file in {'decoder_model_merged': 'bf16'}"),
        ({"model": "fp32"}, BundleError, "has no ONNX file in {'model': 'fp32'}"),
        ("int8", BundleError, r"has no ONNX file in int8\. .* Make one with: sparktasks optimize .* --int8"),
        (
            {"text_model": "fp32", "encoder_model": "fp32"},
            ParamError,
            r"never run together\. Those that do: 'model \+ ",
        ),
        ({"encoder_model": ["int4"]}, ParamError, r"\['int4'\]} is not allowed: it takes 'auto', 'fp32'"),
    ],
)
def test_precisions_that_are_not_there_are_named(
    precision: str | dict[str, str], kind: type[Exception], message: str, variants: Variants
) -> None:
    with pytest.raises(kind, match=message):
        open_bundle(variants(SEVERAL), precision=precision)


def test_of_several_variants_none_is_guessed(variants: Variants) -> None:
    folder = variants(["decoder_model_merged_q4", "encoder_model_fp16", "encoder_model_quantized"])
    message = r"has several forms of encoder_model: .*fp16.*quantized.*precision={'encoder_model': 'fp16'}"
    with pytest.raises(BundleError, match=message):
        open_bundle(folder)
    assert graphs(folder, precision={"encoder_model": "int8"})[1] == "encoder_model_quantized"


@pytest.mark.parametrize("precision", ["auto", "int4", {"decoder_model_merged": "int4", "encoder_model": "fp32"}])
def test_the_hub_is_asked_for_the_files_that_are_opened(
    precision: str | dict[str, str], variants: Variants, tmp_path: Path
) -> None:
    folder = variants(SEVERAL)
    opened = [Path(name).name for name in open_bundle(folder, precision=precision).graphs]
    mains, beside = next(files for files in graph_files(precision) if opened[0] in files[0])
    assert {*opened[1:]} <= {*beside}
    if precision != "auto":
        assert "decoder_model_merged.onnx" not in mains


MIXED = {"decoder_model_merged": "int4", "encoder_model": "fp32"}


@pytest.fixture
def mixed(bundle: Callable[[str], str], tmp_path: Path) -> Path:
    """A translator whose folder has all graphs in float32 and in int4."""
    folder = tmp_path / "mixed"
    quantize(open_bundle(bundle(T5)), folder, "int4")
    for path in Path(bundle(T5)).glob("*.onnx"):
        shutil.copy(path, folder / path.name)
    return folder


def test_mixed_precisions_run_and_differ_from_both(mixed: Path) -> None:
    texts = ["the king", "my lord", "what is the weather", "stop"]
    answers = {}
    for precision in ("fp32", "int4", MIXED):
        stage = TextGenerator.pretrained(mixed, precision=precision, maxNewTokens=8)
        answers[str(precision)] = str(LocalPipeline([DocumentAssembler(), stage]).annotate(texts))
    assert len(set(answers.values())) == 3


def test_a_stage_of_mixed_precisions_is_saved_with_its_own_graphs(spark: object, mixed: Path, tmp_path: Path) -> None:
    stage = TextGenerator.pretrained(mixed, precision=MIXED, maxNewTokens=8)
    opened = stage.getBundle()
    stage.save(str(tmp_path / "saved"))
    loaded = TextGenerator.load(str(tmp_path / "saved")).getBundle()
    assert list(loaded.graphs) == list(opened.graphs) == ["decoder_model_merged_int4.onnx", "encoder_model.onnx"]
    assert loaded.hash == opened.hash
    assert not (tmp_path / "saved" / "bundle" / "decoder_model_merged.onnx").exists()


def test_a_stage_of_mixed_precisions_runs_on_executors(spark: Any, mixed: Path) -> None:
    stage = TextGenerator.pretrained(mixed, precision=MIXED, maxNewTokens=8)
    expected = LocalPipeline([DocumentAssembler(), stage]).annotate("the king")["generation"]
    frame = DocumentAssembler().transform(spark.createDataFrame([("the king",)], "text string"))
    assert stage.transform(frame).select("generation.result").head()[0] == expected


# -- outside data


def test_data_in_several_files_belong_to_the_graph(bundle: Callable[[str], str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle(BERT), tmp_path / "model"))
    expected = open_bundle(folder)
    model = onnx.load(folder / "model.onnx")
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 2000]
    assert len(large) > 3
    for number, tensor in enumerate(large):
        location = f"model.onnx_data_{number % 3}" if number % 3 else "model.onnx_data"
        onnx.external_data_helper.set_external_data(tensor, location)
    onnx.save(model, folder / "model.onnx")
    (folder / "model_fp16.onnx_data_1").write_bytes(b"of another precision")
    opened = open_bundle(folder)
    data = ("model.onnx_data", "model.onnx_data_1", "model.onnx_data_2")
    assert opened.graph.external_files == data
    assert [name for name in opened.files if "onnx_data" in name] == list(data)
    assert opened.weight_bytes >= expected.weight_bytes
    texts = ["play some music", "stop"]
    from sparktasks import TextClassifier

    answers = [
        LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(source)]).annotate(texts)
        for source in (bundle(BERT), folder)
    ]
    assert answers[0] == answers[1]
    (folder / "model.onnx_data_1").unlink()
    with pytest.raises(BundleError, match=r"as outside data, wants the file 'model\.onnx_data_1', which is not there"):
        open_bundle(folder)


# -- what transformers' own exporter writes


def transformers_export(folder: Path, *components: str) -> None:
    """Name the graphs of a folder as `transformers.exporters` does."""
    entries = {name: {"file": f"{name}.onnx", "metadata": {}} for name in components}
    manifest = {"schema_version": 1, "export_format": "onnx", "components": entries}
    (folder / "export.json").write_text(json.dumps(manifest))


def test_the_graphs_of_a_generator_by_transformers_itself_are_refused_with_what_helps(variants: Variants) -> None:
    folder = variants(["prefill", "decode"])
    for graph in (folder / "onnx").iterdir():
        graph.rename(folder / graph.name)
    transformers_export(folder, "prefill", "decode")
    message = r"holds the graphs 'prefill', 'decode', .*: these are not read here\. .*: sparktasks export MODEL FOLDER$"
    for stage in (TextGenerator, Translator):
        with pytest.raises(BundleError, match=message):
            stage.pretrained(folder)


def test_an_encoder_by_transformers_itself_is_taken(bundle: Callable[[str], str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle(BERT), tmp_path / "model"))
    transformers_export(folder, "model")
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    assert open_bundle(folder).graph.external_files == ("model.onnx.data",)


def test_every_layout_names_each_graph_once() -> None:
    for main, companions in LAYOUTS.items():
        assert main not in companions.values()
        assert len(set(companions.values())) == len(companions)
