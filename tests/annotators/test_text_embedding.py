"""TextEmbedder: what sentence-transformers' files say is done, or refused by name."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparktasks import DocumentAssembler, LocalPipeline, TextEmbedder
from sparktasks.errors import BundleError, ParamError
from sparktasks.ops.pooling import ACTIVATIONS, pool, unit

BUNDLE = Path(__file__).parents[1] / "bundles" / "bert-embedding-mean"
MODULES = json.loads((BUNDLE / "modules.json").read_text(encoding="utf-8"))
TEXT = "Book me a table in Lisbon"


def module(kind: str, path: str = "", package: str = "sentence_transformers.models") -> dict[str, Any]:
    return {"idx": 9, "name": "9", "path": path, "type": f"{package}.{kind}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = Path(shutil.copytree(BUNDLE, tmp_path / "model"))
    for path in found.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return found


def write(folder: Path, files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def vector(folder: Path, text: str = TEXT, **params: Any) -> np.ndarray:
    rows = LocalPipeline([DocumentAssembler(), TextEmbedder.pretrained(folder, **params)]).fullAnnotate(text)
    return np.asarray(rows["embeddings"][0].embeddings)


POOLING = "1_Pooling/config.json"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules.json": [*MODULES, module("WordWeights")]}, "modules.json wants 'WordWeights'"),
        ({"modules.json": [module("Asym"), *MODULES]}, "modules.json wants 'Asym'"),
        ({"modules.json": {"type": "Transformer"}}, r"modules.json holds .*; a list is expected"),
        ({POOLING: {"pooling_mode": "attention"}}, r"the pooling 'attention' is not known. Known are: 'mean', 'cls'"),
        ({POOLING: {"pooling_mode_secret": True}}, "the pooling 'pooling_mode_secret' is not known"),
        ({POOLING: ["mean"]}, r"1_Pooling/config.json holds .*; an object is expected"),
        (
            {"modules.json": [*MODULES, module("Dense", "2_Dense")], "2_Dense/config.json": {}},
            "not in 2_Dense/model.safetensors",
        ),
        (
            {"sentence_bert_config.json": {"transformer_task": "text-generation"}},
            "want transformer_task='text-generation'",
        ),
        ({"sentence_bert_config.json": {"modality_config": {"message": {}}}}, "put texts into a chat template"),
        (
            {"sentence_bert_config.json": {"processing_kwargs": {"text": {"add_special_tokens": False}}}},
            "set processing_kwargs text: 'add_special_tokens'",
        ),
        (
            {"config_sentence_transformers.json": {"prompts": {"query": "q: "}, "default_prompt_name": "qury"}},
            "default_prompt_name='qury' is none of its prompts",
        ),
    ],
)
def test_what_is_not_done_is_refused_by_name(files: Mapping[str, Any], message: str, folder: Path) -> None:
    write(folder, files)
    with pytest.raises(BundleError, match=message):
        TextEmbedder.pretrained(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"activation_function": "my.package.Swish"}, "wants the activation 'my.package.Swish'"),
        ({"activation_function": "torch.nn.modules.activation.Mish"}, "Known are: 'Identity', 'Tanh'"),
        ({"module_input_name": "token_embeddings"}, "works on 'token_embeddings'"),
    ],
)
def test_dense_modules_that_are_not_done_are_refused(config: Mapping[str, Any], message: str, folder: Path) -> None:
    write(folder, {"modules.json": [*MODULES, module("Dense", "2_Dense")], "2_Dense/config.json": config})
    (folder / "2_Dense/model.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match=message):
        TextEmbedder.pretrained(folder)


def test_damaged_weights_of_a_module_are_named(folder: Path) -> None:
    write(folder, {"modules.json": [*MODULES, module("Dense", "2_Dense")], "2_Dense/config.json": {}})
    (folder / "2_Dense/model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(BundleError, match=r"2_Dense/model.safetensors cannot be read"):
        vector(folder)


def test_a_folder_without_the_files_warns_of_what_is_assumed(folder: Path) -> None:
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")
    with pytest.warns(UserWarning, match=r"these are assumed: pooling='mean', normalize=False. Set the params"):
        vector(folder)  # sentence_bert_config.json is still there, and says how long texts may be
    (folder / "sentence_bert_config.json").unlink()
    with pytest.warns(UserWarning, match=r"these are assumed: normalize=False, maxLength=64"):
        vector(folder, pooling="cls")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vector(folder, pooling="mean", normalize=True, maxLength=20)


def test_the_default_prompt_is_put_before_texts(folder: Path) -> None:
    write(
        folder,
        {
            "config_sentence_transformers.json": {
                "prompts": {"query": "search for ", "none": ""},
                "default_prompt_name": "query",
            }
        },
    )
    assert np.array_equal(vector(folder), vector(folder, prompt="search for "))
    assert np.array_equal(vector(folder, prompt=""), vector(folder, promptName="none"))
    assert not np.allclose(vector(folder), vector(folder, prompt=""))
    with pytest.raises(ParamError, match=r"has no prompt 'qery'\. Did you mean 'query'"):
        vector(folder, promptName="qery")
    with pytest.raises(ParamError, match="cannot be combined"):
        vector(folder, prompt="a", promptName="query")


def test_vectors_are_cut_after_scaling_unless_it_is_asked_for(folder: Path) -> None:
    whole = vector(folder, truncateDim=None)
    assert np.array_equal(vector(folder, truncateDim=5), whole[:5])
    assert np.linalg.norm(vector(folder, truncateDim=5, normalize=True)) == pytest.approx(1, abs=1e-6)
    write(folder, {"config_sentence_transformers.json": {"prompts": {}, "truncate_dim": 7}})
    assert np.array_equal(vector(folder), whole[:7])


def test_a_prompt_that_fills_the_window_is_an_error_of_the_row(folder: Path) -> None:
    write(folder, {POOLING: {"pooling_mode": "mean", "include_prompt": False}})
    stage = TextEmbedder.pretrained(folder, prompt="word " * 60)
    found = LocalPipeline([DocumentAssembler(), stage]).fullAnnotate(TEXT)["embeddings"][0]
    assert found.result is None
    assert "leaves no room for the text" in found.metadata["error"]


@pytest.mark.parametrize("mode", ["mean", "max", "mean_sqrt_len", "weightedmean"])
def test_poolings_of_float16_do_not_overflow(mode: str) -> None:
    tokens = np.full((300, 4), 300, np.float16)
    pooled = pool(tokens, [mode])
    assert pooled.dtype == np.float32
    assert np.linalg.norm(unit(pooled)) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(unit(tokens[0])) == pytest.approx(1, abs=1e-6)


def test_activations_are_torchs() -> None:
    values = np.array([-2.0, 0.0, 1.5], np.float32)
    expected = {  # torch 2.13
        "Identity": [-2.0, 0.0, 1.5],
        "Tanh": [-0.9640276, 0.0, 0.9051482],
        "ReLU": [0.0, 0.0, 1.5],
        "Sigmoid": [0.1192029, 0.5, 0.8175744],
        "GELU": [-0.0455003, 0.0, 1.3997892],
    }
    assert set(expected) == set(ACTIVATIONS)
    for name, results in expected.items():
        assert ACTIVATIONS[name](values) == pytest.approx(results, abs=1e-6)
