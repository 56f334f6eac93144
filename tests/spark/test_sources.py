"""Models from URIs and from the hub; the hub is a small local server with the hub's endpoints."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier
from sparktasks.errors import BundleError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/tiny-bert"


def serve(folder: Path) -> type[BaseHTTPRequestHandler]:  # noqa: C901  (one branch for each path)
    """Make a handler that answers as the hub does for one repository."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    class Handler(BaseHTTPRequestHandler):
        asked: list[str] = []  # noqa: RUF012

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            prefix = f"/{REPOSITORY}/resolve/{COMMIT}/"
            if self.path.startswith(f"/api/models/{REPOSITORY}/tree/"):  # what huggingface_hub asks from version 1 on
                tree = [
                    {"type": "file", "path": name, "oid": COMMIT, "size": len(content)}
                    for name, content in files.items()
                ]
                self.send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, body)
            elif self.path.startswith(f"/api/models/{REPOSITORY}"):
                listing = {"id": REPOSITORY, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
                self.send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, body)
            elif self.path.startswith(prefix) and self.path.removeprefix(prefix) in files:
                content = files[self.path.removeprefix(prefix)]
                if body:
                    self.asked.append(self.path.removeprefix(prefix))
                self.send(
                    200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, body
                )
            else:
                self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

        def send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    return Handler


@pytest.fixture
def hub(
    request: pytest.FixtureRequest, bundle: Callable[[str], str], tmp_path: Path
) -> Iterator[tuple[str, list[str]]]:
    folder = tmp_path / "repository"
    shutil.copytree(bundle(getattr(request, "param", "bert-text-classification")), folder)
    (folder / "onnx").mkdir()
    for graph in folder.glob("*.onnx"):
        (folder / "onnx" / f"{graph.stem}_int8.onnx").write_bytes(b"must not be fetched")
        shutil.move(graph, folder / "onnx" / graph.name)
    (folder / "model.safetensors").write_bytes(b"must not be fetched")
    handler = serve(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


CODE = f"""
from sparktasks import *
stages = [DocumentAssembler(), TextClassifier.pretrained({REPOSITORY!r})]
print(LocalPipeline(stages).annotate("play music")["category"])
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean | environment, check=False
    )


def test_hub_ids_are_fetched_with_a_progress_bar_and_work_offline(
    hub: tuple[str, list[str]], bundle: Callable[[str], str], tmp_path: Path
) -> None:
    url, asked = hub
    online = run(CODE, HF_ENDPOINT=url, HF_HOME=str(tmp_path / "home"))
    expected = LocalPipeline(
        [DocumentAssembler(), TextClassifier.pretrained(bundle("bert-text-classification"))]
    ).annotate("play music")
    assert online.stdout.strip() == str(expected["category"]), online.stderr
    assert "100%" in online.stderr
    assert "onnx/model.onnx" in asked
    assert not {"onnx/model_int8.onnx", "model.safetensors"} & set(asked)
    asked.clear()
    offline = run(CODE, HF_ENDPOINT=url, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1")
    assert offline.stdout == online.stdout, offline.stderr
    assert asked == []


@pytest.mark.parametrize("hub", ["t5-text2text-generation"], indirect=True)
def test_of_several_graphs_those_that_run_together_are_fetched(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = hub
    code = f"from sparktasks import *; print(sorted(Translator.pretrained({REPOSITORY!r}).getBundle().graphs))"
    done = run(code, HF_ENDPOINT=url, HF_HOME=str(tmp_path / "home"))
    graphs = ["onnx/decoder_model_merged.onnx", "onnx/encoder_model.onnx"]
    assert done.stdout.strip() == str(graphs), done.stderr
    assert sorted(name for name in asked if name.endswith(".onnx")) == graphs


def test_unknown_hub_id_says_so(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    done = run(CODE.replace("tiny-bert", "nothing"), HF_ENDPOINT=hub[0], HF_HOME=str(tmp_path / "home"))
    assert "there is no folder 'someone/nothing' here, and the hub did not give it" in done.stderr


def test_without_the_hub_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'sparktasks\[hub\]'"):
        TextClassifier.pretrained(REPOSITORY)


def test_uri_is_read_through_spark(
    spark: SparkSession, bundle: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARKTASKS_CACHE", str(tmp_path / "cache"))
    source = Path(bundle("bert-text-classification"))
    fetched = [TextClassifier.pretrained(f"file://{source}").getBundle() for _ in range(2)]
    assert fetched[0].folder == fetched[1].folder
    assert tmp_path in fetched[0].folder.parents
    assert fetched[0].hash == TextClassifier.pretrained(source).getBundle().hash


def test_folder_with_one_quantized_model_is_taken(bundle: Callable[[str], str], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle("bert-text-classification"), folder)
    (folder / "model.onnx").rename(folder / "model_quantized.onnx")
    assert TextClassifier.pretrained(folder).getBundle().model == "model_quantized.onnx"
    shutil.copy(folder / "model_quantized.onnx", folder / "model_int8.onnx")
    with pytest.raises(BundleError, match=r"has no model\.onnx.*'model_int8\.onnx', 'model_quantized\.onnx'"):
        TextClassifier.pretrained(folder)
