"""What `sparktasks export` says and needs before any library of the extra is used."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import sparktasks
from sparktasks.cli import main
from sparktasks.errors import BundleError
from sparktasks.export.source import find_source
from sparktasks.export.tasks import FORMS
from sparktasks.spark.sources import find_folder

PACKAGE = Path(sparktasks.__file__).parent
LIBRARIES = {"torch", "transformers", "optimum", "accelerate"}


def write_model(folder: Path, weights: str = "model.safetensors") -> Path:
    """Write what looks like a PyTorch folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    (folder / weights).touch()
    return folder


@pytest.mark.parametrize("library", ["torch", "transformers", "optimum.exporters.onnx"])
def test_export_without_its_extra_says_what_to_install(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit):
        main(["export", str(write_model(tmp_path / "model")), str(tmp_path / "onnx")])
    assert "pip install 'sparktasks[export]'" in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()


def test_export_needs_no_spark(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pyspark'] = sys.modules['torch'] = None; from sparktasks.cli import main; "
    code += f"main(['export', {str(write_model(tmp_path / 'model'))!r}, {str(tmp_path / 'onnx')!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "exporting a model needs the package 'torch'" in done.stderr


def libraries_of(path: Path) -> set[str]:
    """Return which of the extra's libraries a file imports, those at its top level with a star."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        roots = {name.partition(".")[0] for name in names} & LIBRARIES
        found.update(f"{root}*" if node in tree.body else root for root in roots)
    return found


def test_only_the_export_room_imports_torch_and_only_when_it_runs() -> None:
    used = {path: libraries_of(path) for path in PACKAGE.rglob("*.py")}
    rooms = {path.relative_to(PACKAGE).parts[0] for path, names in used.items() if names}
    assert rooms == {"export"}
    assert not [path for path, names in used.items() if any(name.endswith("*") for name in names)]


def test_every_task_can_be_exported() -> None:
    assert sorted(FORMS) == sorted(sparktasks.TASKS)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ((), "no config.json"),
        (("adapter_config.json",), "an adapter"),
        (("config.json", "tf_model.h5"), "no weights in PyTorch"),
    ],
)
def test_a_folder_without_a_model_is_refused_by_name(files: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(BundleError, match=reason) as refusal:
        find_source(str(tmp_path))
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize("name", ["models/of/mine", "./missing", "missing", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="there is no folder"):
        find_source(name)


def test_a_module_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "other")
    modules = [{"idx": 0, "name": "0", "path": "../other", "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BundleError, match="leaves the bundle"):
        find_source(str(tmp_path / "model"))


@pytest.mark.parametrize(("weights", "fetches"), [("model.safetensors", 1), ("pytorch_model.bin", 2)])
def test_a_hub_id_is_fetched_without_weights_in_other_forms(
    weights: str, fetches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, weights)
    asked: list[dict[str, Any]] = []

    def snapshot(repository: str, **options: Any) -> str:
        asked.append({"repository": repository, **options})
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    source = find_source("owner/model@v2")
    assert (source.name, source.folder) == ("owner/model@v2", tmp_path.resolve())
    assert len(asked) == fetches
    assert {(item["repository"], item["revision"]) for item in asked} == {("owner/model", "v2")}
    assert "*.safetensors" in asked[0]["allow_patterns"]
    assert not [name for name in asked[0]["allow_patterns"] if "*pytorch_model" in name]


def test_a_hub_id_without_onnx_names_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(BundleError, match="sparktasks export owner/model FOLDER"):
        find_folder("owner/model", None, "TextClassifier")


def test_a_folder_without_onnx_names_the_export(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="sparktasks export MODEL FOLDER"):
        sparktasks.TextClassifier.pretrained(write_model(tmp_path))
