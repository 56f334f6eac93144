"""Which graphs make a generator, and which are refused, with what is wrong named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from sparktasks import TextGenerator, Translator
from sparktasks.errors import BundleError, DataError
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.generation.generator import Generator, GeneratorOptions, Prompt, Reading
from sparktasks.runtime.generation.layout import Layout, check_generator
from sparktasks.runtime.generation.scheduler import BatchLimits
from sparktasks.runtime.generation.settings import Settings

GPT2, T5, ROBERTA = "gpt2-text-generation", "t5-text2text-generation", "roberta-token-classification"
Copy = Callable[[str], Path]
Edit = Callable[[onnx.ModelProto], None]


@pytest.fixture
def copy(bundle: Callable[[str], str], tmp_path: Path) -> Copy:
    """Copy a bundle, to be changed."""
    return lambda name: Path(shutil.copytree(bundle(name), tmp_path / name))


def edited(folder: Path, file: str, edit: Edit) -> None:
    model = onnx.load(folder / file)
    edit(model)
    onnx.save(model, folder / file)


def renamed(before: str, after: str) -> Edit:
    """Give an input another name."""

    def edit(model: onnx.ModelProto) -> None:
        port = next(port for port in model.graph.input if port.name == before)
        port.name = after
        for node in model.graph.node:
            node.input[:] = [after if name == before else name for name in node.input]

    return edit


def added(name: str) -> Edit:
    """Add an input that nothing needs."""
    return lambda model: model.graph.input.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 8, 8])
    )


def sized(name: str, axis: int, size: int) -> Edit:
    """Fix an axis of an input."""

    def edit(model: onnx.ModelProto) -> None:
        port = next(port for port in model.graph.input if port.name == name)
        port.type.tensor_type.shape.dim[axis].ClearField("dim_param")
        port.type.tensor_type.shape.dim[axis].dim_value = size

    return edit


def pooled(model: onnx.ModelProto) -> None:
    """Let the first output have two axes."""
    name = model.graph.output[0].name
    axes = helper.make_tensor("pooled_axes", TensorProto.INT64, [1], [1])
    model.graph.initializer.append(axes)
    model.graph.node.append(helper.make_node("ReduceSum", [name, "pooled_axes"], ["pooled"], keepdims=0))
    model.graph.output.remove(model.graph.output[0])
    model.graph.output.insert(0, helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", 32]))


@pytest.mark.parametrize(
    ("name", "file", "edit", "message"),
    [
        (
            T5,
            "encoder_model.onnx",
            renamed("input_ids", "input_features"),
            "takes the inputs 'attention_mask', 'input_features'",
        ),
        (
            T5,
            "encoder_model.onnx",
            added("pixel_values"),
            "'pixel_values'; an encoder of text takes 'input_ids', 'attention_mask'",
        ),
        (T5, "encoder_model.onnx", pooled, r"computes \{'pooled': .*states of shape \(batch, tokens, hidden size\)"),
        (
            T5,
            "encoder_model.onnx",
            sized("input_ids", 1, 16),
            r"encoder_model.onnx takes input_ids of the fixed shape \['.*', 16\]",
        ),
        (T5, "encoder_model.onnx", sized("attention_mask", 0, 1), "takes attention_mask of the fixed shape"),
        (
            T5,
            "decoder_model_merged.onnx",
            sized("encoder_hidden_states", 1, 16),
            "takes encoder_hidden_states of the fixed shape",
        ),
        (GPT2, "model.onnx", sized("input_ids", 0, 1), r"takes input_ids of the fixed shape \[1, "),
        (GPT2, "model.onnx", sized("attention_mask", 1, 64), "takes attention_mask of the fixed shape"),
        (GPT2, "model.onnx", added("pixel_values"), "takes the inputs 'pixel_values'"),
        (
            GPT2,
            "model.onnx",
            added("encoder_hidden_states"),
            "takes encoder_hidden_states, but there is no encoder_model.onnx",
        ),
    ],
)
def test_graphs_in_another_role_are_refused_when_the_stage_is_made(
    name: str, file: str, edit: Edit, message: str, copy: Copy
) -> None:
    folder = copy(name)
    edited(folder, file, edit)
    with pytest.raises(BundleError, match=message):
        (TextGenerator if name == GPT2 else Translator).pretrained(folder)


def embeddings(inputs: dict[str, int], axes: int) -> onnx.ModelProto:
    """Make a graph that turns ids into vectors."""
    ports = [helper.make_tensor_value_info(name, kind, ["batch", "tokens"]) for name, kind in inputs.items()]
    table = helper.make_tensor("table", TensorProto.FLOAT, [600, 4], [0.0] * 2400)
    nodes = [helper.make_node("Gather", ["table", next(iter(inputs))], ["vectors"])]
    out = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", "tokens", 4][:axes])
    return helper.make_model(
        helper.make_graph(nodes, "g", ports, [out], [table]), opset_imports=[helper.make_opsetid("", 17)]
    )


@pytest.mark.parametrize(
    ("inputs", "axes", "message"),
    [
        (
            {"input_ids": TensorProto.INT64, "token_type_ids": TensorProto.INT64},
            3,
            "but one input of token ids is expected",
        ),
        ({"pixel_values": TensorProto.FLOAT}, 3, "takes {'pixel_values': 'float32'}, but one input of token ids"),
        ({"input_ids": TensorProto.INT64}, 2, "states of shape"),
    ],
)
def test_a_graph_of_embeddings_takes_ids_and_gives_vectors(
    inputs: dict[str, int], axes: int, message: str, copy: Copy
) -> None:
    folder = copy(GPT2)
    edited(folder, "model.onnx", renamed("input_ids", "inputs_embeds"))
    (folder / "model.onnx").rename(folder / "decoder_model_merged.onnx")
    with pytest.raises(BundleError, match=r"takes inputs_embeds, but there is no embed_tokens.onnx"):
        check_generator(open_bundle(folder))
    onnx.save(embeddings(inputs, axes), folder / "embed_tokens.onnx")
    with pytest.raises(BundleError, match=message):
        check_generator(open_bundle(folder))


def test_a_step_of_one_token_is_no_fixed_length(copy: Copy) -> None:
    folder = copy(T5)
    shutil.copy(folder / "decoder_model_merged.onnx", folder / "decoder_model.onnx")
    (folder / "decoder_model_merged.onnx").rename(folder / "decoder_with_past_model.onnx")

    def no_past(model: onnx.ModelProto) -> None:
        for port in [*model.graph.input]:
            if "past" in port.name:
                model.graph.input.remove(port)

    edited(folder, "decoder_model.onnx", no_past)
    edited(folder, "decoder_with_past_model.onnx", sized("input_ids", 1, 1))
    check_generator(open_bundle(folder))
    edited(folder, "decoder_with_past_model.onnx", sized("input_ids", 1, 2))
    with pytest.raises(
        BundleError, match=r"decoder_with_past_model.onnx takes input_ids of the fixed shape \['.*', 2\]"
    ):
        check_generator(open_bundle(folder))


def test_a_classifier_of_tokens_is_no_generator(bundle: Callable[[str], str]) -> None:
    with pytest.raises(BundleError, match=r"logits of 7 columns, but the tokenizer has ordinary tokens up to id 599"):
        TextGenerator.pretrained(bundle(ROBERTA))


def test_a_model_of_masked_tokens_is_no_generator(copy: Copy) -> None:
    folder = copy(GPT2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["RobertaForMaskedLM"]}))
    check_generator(open_bundle(folder))  # it has a cache: whatever the file says, it continues texts
    (folder / "model.onnx").write_bytes(_without_cache(folder / "model.onnx").SerializeToString())
    with pytest.raises(BundleError, match=r"'RobertaForMaskedLM'.*cannot continue"):
        TextGenerator.pretrained(folder)


def _without_cache(path: Path) -> onnx.ModelProto:
    """Return a graph whose header has no cache: nobody runs it."""
    model = onnx.load(path)
    kept = [port for port in model.graph.input if not port.name.startswith("past")]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


# -- tokens without a row


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", [GPT2, T5])
def test_a_token_without_a_row_is_an_error_of_its_prompt(
    name: str, known: bool, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no graph says how many rows there are, the run fails, and the other texts run again."""
    if not known:
        monkeypatch.setattr(Layout, "source_rows", None)
    folder = copy(name)
    content = json.loads((folder / "tokenizer.json").read_text())
    rows = 600 if name == GPT2 else 604
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"].append({"id": rows, "content": "<mask>", **flags})
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary.append(["<mask>", 0.0])
    else:
        vocabulary["<mask>"] = rows
    (folder / "tokenizer.json").write_text(json.dumps(content))
    bundle = open_bundle(folder)
    settings = Settings(max_new_tokens=5, decoder_start_token_id=0)
    generator = Generator(bundle, GeneratorOptions(settings, Reading(), BatchLimits(8, 1 << 16, 512)))
    prompts = generator.prompts(["the king", "the <mask> king", "my lord"])
    found = generator.run(prompts)
    assert isinstance(found[1], DataError)
    if known:
        assert str(found[1]).startswith(
            f"the text has the token '<mask>' ({rows}), and the model's embedding has {rows} rows"
        )
    else:
        assert "the model could not be run on this text: " in str(found[1])
    for alone, result in zip(generator.run([prompts[0], prompts[2]]), [found[0], found[2]], strict=True):
        assert not isinstance(alone, Exception)
        assert not isinstance(result, Exception)
        assert [each.ids for each in alone] == [each.ids for each in result]
    assert "makes nothing of this text" in str(generator.run([Prompt(())])[0])
