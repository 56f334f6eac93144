"""Precisions: the file that is taken, the forms that are made from fp32 bundles, and which of them is recommended."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier, TextGenerator, cli
from sparktasks.errors import BundleError, ParamError
from sparktasks.runtime import blockwise
from sparktasks.runtime.agreement import NEXT_TOKEN, Agreement, agreement, recommendation
from sparktasks.runtime.blockwise import round_in_blocks
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.layouts import PRECISIONS
from sparktasks.runtime.quantize import FORMS, LOSES_TOKENS, quantize, write_card
from sparktasks.spark.sources import STARTERS

TEXTS = [
    "play some music",
    "book a table for two in lisbon",
    "what is the weather going to be like tomorrow",
    "how much money is in my account",
    "stop",
]


@pytest.fixture
def variants(bundle: Callable[[str], str], tmp_path: Path) -> Path:
    folder = tmp_path / "variants"
    shutil.copytree(bundle("bert-text-classification"), folder)
    (folder / "onnx").mkdir()
    for name in ("model", "model_fp16", "model_quantized", "model_int8w", "model_q4"):
        shutil.copy(folder / "model.onnx", folder / "onnx" / f"{name}.onnx")
    (folder / "model.onnx").unlink()
    return folder


@pytest.mark.parametrize(
    ("precision", "file"),
    [
        ("auto", "model.onnx"),
        ("fp32", "model.onnx"),
        ("fp16", "model_fp16.onnx"),
        ("int8", "model_quantized.onnx"),
        ("int8w", "model_int8w.onnx"),
        ("int4", "model_q4.onnx"),
    ],
)
def test_a_precision_is_the_file_of_that_name(precision: str, file: str, variants: Path) -> None:
    assert open_bundle(variants, precision=precision).model == f"onnx/{file}"
    assert TextClassifier.pretrained(variants, precision=precision).getBundle().model == f"onnx/{file}"


def test_a_precision_that_is_not_there_is_named(bundle: Callable[[str], str]) -> None:
    for precision in FORMS:
        asked = rf"no ONNX file in {precision}\. .* Make one with: sparktasks optimize \S* --{precision}$"
        with pytest.raises(BundleError, match=asked):
            TextClassifier.pretrained(bundle("bert-text-classification"), precision=precision)
    allowed = ", ".join(map(repr, PRECISIONS))
    with pytest.raises(ParamError, match=f"precision='int2' is not allowed: it takes 'auto', {allowed}"):
        TextClassifier.pretrained(bundle("bert-text-classification"), precision="int2")
    with pytest.raises(ParamError, match="cannot be combined"):
        TextClassifier.pretrained(bundle("bert-text-classification"), file="model.onnx", precision="fp32")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter of intents in int8, made by the command."""
    folder = tmp_path_factory.mktemp("int8")
    (folder / "texts").write_text("\n".join(TEXTS))
    texts = str(folder / "texts")
    cli.main(["optimize", "intents-clinc150", "--int8", "--out", str(folder / "made"), "--texts", texts])
    return folder / "made"


def test_an_int8_bundle_is_smaller_and_close(made: Path) -> None:
    original, smaller = open_bundle(STARTERS / "intents-clinc150"), open_bundle(made)
    assert smaller.model == "model_int8.onnx"
    assert smaller.weight_bytes < 0.4 * original.weight_bytes
    found = agreement(original, smaller, TEXTS)
    assert found.cosine > 0.99
    assert 0 < found.lowest <= found.cosine < 1, "an equal model would mean that nothing was quantised"
    assert found.same == 1.0
    stages = [TextClassifier.pretrained(source) for source in (None, made)]
    answers = [LocalPipeline([DocumentAssembler(), stage]).annotate(TEXTS) for stage in stages]
    assert [each["category"] for each in answers[0]] == [each["category"] for each in answers[1]]


def test_the_card_says_what_was_measured(made: Path) -> None:
    card = (made / "README.md").read_text()
    assert "same top label: 100.00%" in card
    assert open_bundle(STARTERS / "intents-clinc150").hash in card
    assert (STARTERS / "intents-clinc150" / "README.md").read_text() in card, "the original's card was lost"
    assert (made / "LICENSE").read_text() == (STARTERS / "intents-clinc150" / "LICENSE").read_text()


def test_batch_invariance_makes_int8_independent_of_companions(made: Path) -> None:
    # Texts of one length, as others may not run together: padding, too, changes what dynamic int8 computes.
    companions = [" ".join(words) for words in itertools.permutations(TEXTS[0].split())][1:]
    scores = {}
    for invariant in (True, False):
        classifier = TextClassifier.pretrained(made, batchInvariant=invariant, batchTokens=4096)
        pipeline = LocalPipeline([DocumentAssembler(), classifier])
        alone = pipeline.fullAnnotate(TEXTS[0])["category"][0].score
        together = pipeline.fullAnnotate([TEXTS[0], *companions])[0]["category"][0].score
        scores[invariant] = (alone, together)
    assert scores[True][0] == scores[True][1]
    assert scores[False][0] != scores[False][1], "companions changed nothing: this test could not fail"


def test_a_folder_that_is_there_is_not_overwritten(made: Path) -> None:
    with pytest.raises(BundleError, match="already exists: name another folder for the int8 bundle"):
        quantize(open_bundle(STARTERS / "intents-clinc150"), made)


def test_a_card_without_texts_says_that_nothing_was_measured(bundle: Callable[[str], str], tmp_path: Path) -> None:
    original = open_bundle(bundle("bert-embedding-mean"))
    smaller = quantize(original, tmp_path / "made")
    write_card(smaller, original, "int8", None)
    assert "nothing: no texts were given" in (tmp_path / "made" / "README.md").read_text()
    assert np.isfinite(agreement(original, smaller, TEXTS).cosine)
    assert agreement(original, smaller, TEXTS).same is None


def test_labels_of_tokens_are_compared_by_token_and_values_by_difference(
    bundle: Callable[[str], str],
    tmp_path: Path,
) -> None:
    tokens = open_bundle(bundle("bert-token-classification"))
    found = agreement(tokens, quantize(tokens, tmp_path / "tokens"), TEXTS)
    assert found.same is not None
    assert 0.9 < found.same <= 1
    value = open_bundle(bundle("distilbert-text-classification"))
    assert len(value.labels) == 1
    found = agreement(value, quantize(value, tmp_path / "value"), TEXTS)
    assert found.same is None
    assert 0 < found.difference < 0.5


def test_what_cannot_be_quantised_leaves_nothing(made: Path, bundle: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is already quantised"):
        quantize(open_bundle(made), tmp_path / "again")
    folder = Path(shutil.copytree(bundle("bert-text-classification"), tmp_path / "bare"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"has no tokenizer\.json"):
        quantize(open_bundle(folder), tmp_path / "again")
    assert not (tmp_path / "again").exists()


# The lowest agreement of each form: 4 bits are too few for models this small, so that it stands for "not nonsense".
CLOSE = {"int8": 0.95, "int8w": 0.99, "int4": 0.5}

OPERATORS = {"int8": {"MatMulInteger"}, "int8w": {"MatMulNBits", "GatherBlockQuantized"}}
OPERATORS["int4"] = OPERATORS["int8w"]


def nodes_of(graph: Any) -> list[Any]:
    """Return all nodes of a graph, those inside of branches too."""
    nodes = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                nodes += nodes_of(attribute.g)
    return nodes


@pytest.mark.parametrize("precision", FORMS)
@pytest.mark.parametrize(
    ("name", "graphs"),
    [
        ("bert-text-classification", ["model"]),
        ("gpt2-text-generation", ["model"]),
        ("t5-text2text-generation", ["decoder_model_merged", "encoder_model"]),
    ],
)
def test_each_form_is_made_whole_and_is_close(
    name: str,
    graphs: list[str],
    precision: str,
    bundle: Callable[[str], str],
    tmp_path: Path,
) -> None:
    import onnx

    original = open_bundle(bundle(name))
    quantize(original, tmp_path / "made", precision)
    made = open_bundle(tmp_path / "made", precision=precision)
    assert list(made.graphs) == [f"{graph}_{precision}.onnx" for graph in graphs]
    assert open_bundle(tmp_path / "made").graphs == made.graphs, "the only form there is must be found without its name"
    for graph in made.graphs:
        kinds = [node.op_type for node in nodes_of(onnx.load(made.folder / graph).graph)]
        assert OPERATORS[precision] <= set(kinds), f"{graph} was not quantised"
    assert made.all_weight_bytes < 0.8 * original.all_weight_bytes
    found = agreement(original, made, TEXTS)
    assert CLOSE[precision] < found.lowest < 1, "an equal model would mean that nothing was quantised"
    with pytest.raises(BundleError, match="is already quantised"):
        quantize(made, tmp_path / "again", precision)


@pytest.mark.parametrize("name", ["gpt2-text-generation", "t5-text2text-generation"])
def test_a_generator_runs_in_each_form(name: str, bundle: Callable[[str], str], tmp_path: Path) -> None:
    for precision in FORMS:
        quantize(open_bundle(bundle(name)), tmp_path / precision, precision)
        generator = TextGenerator.pretrained(tmp_path / precision, precision=precision, maxNewTokens=4)
        rows = LocalPipeline([DocumentAssembler(), generator]).annotate(TEXTS)
        assert all(row["generation"][0] for row in rows)


@pytest.mark.parametrize("precision", ["int8w", "int4"])
def test_every_product_by_weights_is_quantised_in_both_branches(
    precision: str,
    bundle: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """The merged decoder of T5 keeps all its weights in two branches, which share them."""
    import onnx

    made = quantize(open_bundle(bundle("t5-text2text-generation")), tmp_path / "made", precision)
    graph = onnx.load(made.model_path).graph
    float_matrices = {
        tensor.name: tuple(tensor.dims)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2 and "scales" not in tensor.name
    }
    assert set(float_matrices.values()) <= {(16, 4)}, "only the small table of relative positions is left in float32"
    products = [node for node in nodes_of(graph) if node.op_type == "MatMulNBits"]
    heads = [node for node in products if "logits" in node.output]
    bits = {node.output[0]: entry.i for node in products for entry in node.attribute if entry.name == "bits"}
    assert len(heads) == 2
    assert {bits[node.output[0]] for node in heads} == {8}, "the head keeps 8 bits"
    assert set(bits.values()) == ({8} if precision == "int8w" else {4, 8})
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    assert all("MatMulNBits" in [node.op_type for node in branch.node] for branch in branches)


def test_a_head_that_shares_the_embedding_is_quantised(tmp_path: Path) -> None:
    """Optimum keeps one copy of tied weights, which the head reads through a Transpose."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from sparktasks.runtime.blockwise import quantize_weights

    table = np.random.default_rng(0).normal(size=(300, 48)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["states"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["states", "turned"], ["logits"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "tokens", 300])
    graph = helper.make_graph(nodes, "tied", [ids], [logits], [numpy_helper.from_array(table, "table")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "a.onnx")
    quantize_weights(tmp_path / "a.onnx", tmp_path / "b.onnx", 4)
    made = onnx.load(tmp_path / "b.onnx").graph
    assert [node.op_type for node in made.node] == ["GatherBlockQuantized", "MatMulNBits"]
    assert "table" not in [tensor.name for tensor in made.initializer], "the float32 table was kept"
    import onnxruntime

    tokens = np.arange(300)[None]
    paths = [str(tmp_path / name) for name in ("a.onnx", "b.onnx")]
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in paths]
    before, after = (session.run(None, {"ids": tokens})[0] for session in sessions)
    assert 0 < np.abs(before - after).max() < 0.02 * np.abs(before).max()


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_rounded_to_half_a_step(bits: int) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    rows[0] = 0
    rows[1] = np.abs(rows[1])
    integers, scales, zeros = round_in_blocks(rows, bits)
    assert integers.shape == (3, 2, 32)
    assert integers.max() < 2**bits
    values = (integers.astype(np.float32) - zeros[..., None]) * scales[..., None]
    error = np.abs(values.reshape(3, -1)[:, :50] - rows)
    assert (error <= np.repeat(scales, 32, axis=1)[:, :50] * 0.5001 + 1e-6).all()
    assert not values[0].any(), "zero must stay zero"


def test_int8w_does_not_depend_on_companions(bundle: Callable[[str], str], tmp_path: Path) -> None:
    quantize(open_bundle(bundle("bert-text-classification")), tmp_path / "made", "int8w")
    classifier = TextClassifier.pretrained(tmp_path / "made", batchTokens=4096, topK=None)
    pipeline = LocalPipeline([DocumentAssembler(), classifier])
    alone = pipeline.fullAnnotate(TEXTS[0])["category"]
    together = pipeline.fullAnnotate([TEXTS[0], "stop it", " ".join(TEXTS)])[0]["category"]
    assert [one.result for one in alone] == [one.result for one in together]
    np.testing.assert_allclose([one.score for one in alone], [one.score for one in together], atol=1e-5)


def test_other_precisions_cannot_be_made(bundle: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(ParamError, match="precision='fp16' cannot be made: it takes 'int8', 'int8w', 'int4'"):
        quantize(open_bundle(bundle("bert-text-classification")), tmp_path / "made", "fp16")
    import onnx

    folder = Path(shutil.copytree(bundle("bert-text-classification"), tmp_path / "fp16"))
    model = onnx.load(folder / "model.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float16), "half"))
    onnx.save(model, folder / "model.onnx")
    for precision in FORMS:
        with pytest.raises(BundleError, match="has float16 weights, which cannot be quantised"):
            quantize(open_bundle(folder), tmp_path / "made", precision)


def measured(same: float | None, faster: float, cosine: float = 0.99, **others: Any) -> Agreement:
    return Agreement(200, cosine, cosine, 0.1, same, faster, **others)


TOKENS = {"choice": NEXT_TOKEN}
JUST_ENOUGH = "99.0% of the top labels are the same (99.0% needed)."


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"int8": measured(0.995, 2.0), "int8w": measured(1.0, 1.4)},
            "int8, 2.00 times as fast as fp32; 99.5% of the top labels are the same (99.0% needed).",
        ),
        (
            {"int8": measured(0.97, 2.0), "int8w": measured(1.0, 1.4)},
            "int8w, 1.40 times as fast as fp32; 100.0% of the top labels are the same (99.0% needed).",
        ),
        (
            {"int8": measured(0.36, 2.0, **TOKENS), "int8w": measured(0.96, 1.4, **TOKENS)},
            "int8w, 1.40 times as fast as fp32; 96.0% of the next tokens are the same (95.0% needed).",
        ),
        (
            {"int8": measured(0.36, 2.0, **TOKENS), "int4": measured(0.6, 1.4, **TOKENS)},
            "stay with fp32; of int4, 60.0% of the next tokens are the same (95.0% needed).",
        ),
        (
            {"int8": measured(None, 2.0, 0.9995, pooled=0.992), "int8w": measured(None, 1.4, 0.998, pooled=0.9994)},
            "int8w, 1.40 times as fast as fp32; the cosine of the text vectors is 0.9994 (0.999 needed).",
        ),
        (
            {"int8w": measured(0.99, 0.9)},
            f"int8w, for its size only (it is 0.90 times as fast as fp32); {JUST_ENOUGH}",
        ),
    ],
)
def test_the_fastest_form_that_keeps_enough_is_recommended(found: dict[str, Agreement], said: str) -> None:
    assert recommendation(found) == f"Recommended: {said}"


def test_a_recommendation_from_few_texts_says_so() -> None:
    assert recommendation({"int8w": Agreement(5, 1, 1, 0, 1.0, 1.4)}).endswith("only 5 texts: 100 or more are surer.")


def test_several_forms_are_made_and_measured_in_one_run(
    bundle: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "texts").write_text("\n".join(TEXTS))
    source, out = bundle("gpt2-text-generation"), str(tmp_path / "made")
    cli.main(["optimize", source, "--int8", "--int8w", "--out", out, "--texts", str(tmp_path / "texts")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith(out)] == [
        f"{out}-int8/model_int8.onnx",
        f"{out}-int8w/model_int8w.onnx",
    ]
    assert lines.count(f"  Warning: {LOSES_TOKENS}") == 1
    assert lines[-1].startswith("Recommended: ")
    for precision in ("int8", "int8w"):
        card = Path(f"{out}-{precision}", "README.md").read_text()
        assert f"sparktasks optimize --{precision}`" in card
        assert "same next token: " in card
        assert lines[-1] in card
        assert (LOSES_TOKENS in card) == (precision == "int8")


def test_nothing_is_left_where_one_of_several_forms_exists(
    bundle: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "made-int4").mkdir()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["optimize", bundle("gpt2-text-generation"), "--int8w", "--int4", "--out", str(tmp_path / "made")])
    assert stopped.value.code == cli.REFUSED
    assert "made-int4 already exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["made-int4"]


def test_weights_that_are_too_large_for_one_file_lie_beside_it(
    bundle: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blockwise, "LARGE", 10_000)
    original = open_bundle(bundle("gpt2-text-generation"))
    made = quantize(original, tmp_path / "made", "int8w")
    assert made.graph.external_files == ("model_int8w.onnx.data",)
    assert "model_int8w.onnx.data" in made.files
    assert agreement(original, made, TEXTS).cosine > 0.99
