"""Saving and loading stages: one line of versioned JSON in Spark ML's own layout, and its files beside it.

    PATH/metadata/part-*   class, uid, params, format version (what Spark's PipelineModel reads as well)
    PATH/bundle/...        the files of its model or dictionary, unchanged

Nothing is pickled. A folder on this machine is read without Spark, so that `LocalPipeline.load` needs no JVM.
"""

from __future__ import annotations

import importlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.ml.util import MLReader, MLWritable, MLWriter
from pyspark.sql import SparkSession

from sparktasks.errors import SavedModelError, did_you_mean
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.folder_files import interpreting
from sparktasks.spark.delivery import is_connect
from sparktasks.spark.sessions import current_session
from sparktasks.spark.storage import fetch_folder, local_path, put_files

if TYPE_CHECKING:
    from sparktasks.spark.annotator import Annotator

FORMAT_VERSION = 1
_PACKAGE = "sparktasks"


class StageWriter(MLWriter):
    """Writes one stage."""

    def __init__(self, stage: Annotator) -> None:
        super().__init__()
        self.stage = stage

    def save(self, path: str) -> None:
        """Write the stage to ``path``, which must not exist unless `overwrite` was called.

        Raises `DeliveryError` where the stage's files changed or are gone since the stage was made.
        """
        spark = self._session()
        folder = getattr(self.stage, "_folder", None)
        line = json.dumps(_metadata(self.stage, spark.version))
        # Checks come first: what is there is deleted only for a stage that can be written.
        if folder is not None:
            folder.check_unchanged()
        if self.shouldOverwrite:
            _clear(self, path)
        spark.createDataFrame([(line,)], ["value"]).coalesce(1).write.text(f"{path}/metadata")
        if folder is not None:
            put_files(folder.folder, folder.files, f"{path}/bundle", shared=_is_visible(path, self.stage.uid))

    def _session(self) -> SparkSession:
        """Return the session given to this writer, else the process's, which pyspark's own look-up misses in a
        thread."""
        if self._sparkSession is None:
            running = current_session()
            if running is not None:
                self.session(running)
        return self.sparkSession


def _clear(writer: MLWriter, path: str) -> None:
    if is_connect(writer.sparkSession):
        from pyspark.ml.connect.readwrite import RemoteMLWriter

        RemoteMLWriter.handleOverwrite(path, True)
    else:
        writer._handleOverwrite(path)


def _is_visible(path: str, uid: str) -> bool:
    """Tell whether what Spark just wrote is on a file system that this process sees under the same path."""
    here = local_path(path)
    if here is None:
        return False
    # Spark's default file system may be another one, and this path hold something else here.
    try:
        return bool(read_metadata(here)["uid"] == uid)
    except (SavedModelError, OSError):
        return False


def _metadata(stage: Annotator, spark_version: str) -> dict[str, Any]:
    if type(stage) is not getattr(importlib.import_module(_PACKAGE), type(stage).__name__, None):
        raise SavedModelError(
            f"{stage.uid}: only the annotators of sparktasks itself can be saved, not your class {type(stage).__name__}"
        )
    folder = getattr(stage, "_folder", None)
    return {
        "model": folder.model if isinstance(folder, Bundle) else None,
        "hasFiles": folder is not None,
        "class": f"{_PACKAGE}.{type(stage).__name__}",
        "timestamp": round(time.time() * 1000),
        "sparkVersion": spark_version,
        "uid": stage.uid,
        "paramMap": {param.name: value for param, value in stage._paramMap.items()},
        "defaultParamMap": {param.name: value for param, value in stage._defaultParamMap.items()},
        "formatVersion": FORMAT_VERSION,
    }


class StageReader(MLReader[Any]):
    """Reads one stage."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind

    def load(self, path: str) -> Any:
        """Read the stage saved at ``path``; `SavedModelError` where it is of another class or was written by a newer
        version."""
        folder = local_path(path)
        # A path without a scheme may be one of Spark's default file system, such as HDFS.
        if folder is None or not (folder / "metadata").is_dir():
            folder = fetch_folder(path)
        stage = load_stage(folder)
        if not isinstance(stage, self.kind):
            raise SavedModelError(
                f"{path} holds a {type(stage).__name__}, not a {self.kind.__name__}. Load it with "
                f"{type(stage).__name__}.load"
            )
        return stage


def load_stage(folder: Path) -> Any:
    """Read the stage saved in a folder of this machine; `SavedModelError` where its metadata are not what was
    written."""
    metadata = read_metadata(folder)
    with interpreting(folder, SavedModelError):
        version = int(metadata.get("formatVersion", 0))
        model = metadata.get("model")
        if version > FORMAT_VERSION:
            raise SavedModelError(
                f"{folder} was saved in format {version}, and this version of sparktasks reads up to {FORMAT_VERSION}. "
                "Run: pip install --upgrade sparktasks"
            )
        stage = _class(str(metadata["class"]), folder)()
        # The uid of the saved stage, and not a new one: errors and pipelines name stages by it.
        stage._resetUid(_plain_name(metadata["uid"], folder))
        stage.setParams(**metadata["paramMap"])
    if (folder / "bundle").is_dir():
        stage.restore(folder / "bundle", model)
    elif model is not None or metadata.get("hasFiles"):
        raise SavedModelError(
            f"{folder} was saved with {f'the model {model!r}' if model else 'files'}, but its folder 'bundle' is "
            "missing. Copy the whole folder"
        )
    return stage


def load_stages(folder: Path) -> list[Any]:
    """Read the stages of a PipelineModel (or the one stage) saved in a folder of this machine, without Spark."""
    metadata = read_metadata(folder)
    with interpreting(folder, SavedModelError):
        if not metadata["class"].startswith("pyspark.ml.pipeline."):
            return [load_stage(folder)]
        uids = [_plain_name(uid, folder) for uid in metadata["paramMap"]["stageUids"]]
    # Spark's own PipelineSharedReadWrite pads the numbers of stages to one width.
    width = len(str(len(uids)))
    stages = []
    for index, uid in enumerate(uids):
        stages += load_stages(folder / "stages" / f"{index:0{width}d}_{uid}")
    return stages


def _plain_name(uid: Any, folder: Path) -> str:
    """Return a stage's uid, which is part of a folder's name; `SavedModelError` where it would lead elsewhere."""
    if not isinstance(uid, str) or not re.fullmatch(r"[\w.-]+", uid):
        raise SavedModelError(f"{folder} names a stage {uid!r}: letters, digits, '_', '.' and '-' are expected")
    return uid


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read the JSON line of a saved stage or pipeline."""
    parts = sorted((folder / "metadata").glob("part-*"))
    with interpreting(folder, SavedModelError):
        text = "\n".join(part.read_text(encoding="utf-8") for part in parts)
        first_line = text.lstrip("\r\n").partition("\n")[0]
        metadata = json.loads(first_line) if first_line else None
    if not first_line:
        raise SavedModelError(f"{folder} is not a saved stage or pipeline: there is no metadata in it")
    if not isinstance(metadata, dict):
        raise SavedModelError(f"{folder}: its metadata are {str(metadata)[:80]!r}, but a JSON object is expected")
    return metadata


def _class(name: str, folder: Path) -> Any:
    module, _, attribute = name.rpartition(".")
    if module != _PACKAGE:
        raise SavedModelError(f"{folder} holds a {name}: only stages of sparktasks can be read here")
    # Only public stages: a name from a file must not lead to just any object.
    front = importlib.import_module(_PACKAGE)
    public = getattr(front, attribute) if attribute in front.__all__ else None
    if not (isinstance(public, type) and issubclass(public, MLWritable)):
        raise SavedModelError(
            f"{folder} holds a {attribute}, which this version of sparktasks "
            f"lacks.{did_you_mean(attribute, front.__all__)}"
        )
    return public
