"""The only place where onnxruntime sessions are configured, and the process-wide cache that keeps them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from sparktasks.errors import BundleError, MissingDependency
from sparktasks.runtime import threads
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache

log = logging.getLogger(__name__)

CACHE_BYTES = 4 * 1024**3
_ELEMENT_TYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}


class Session:
    """An onnxruntime session that is fed by name; what the graph does not ask for is left out."""

    def __init__(self, bundle: Bundle) -> None:
        self._session = _open(bundle.model_path)
        self.bytes = bundle.size
        self.inputs: dict[str, Any] = {port.name: _ELEMENT_TYPES.get(port.type, np.float32) for port in self._session.get_inputs()}
        self.outputs: list[str] = [port.name for port in self._session.get_outputs()]

    @property
    def provider(self) -> str:
        """The onnxruntime execution provider that comes first for this session."""
        return str(self._session.get_providers()[0])

    def run(self, outputs: list[str], **feeds: np.ndarray) -> list[np.ndarray]:
        """Run the graph; feeds are converted to the element types it wants."""
        wanted = {name: feeds[name].astype(dtype, copy=False) for name, dtype in self.inputs.items()}
        found: list[np.ndarray] = self._session.run(outputs, wanted)
        return found


def _open(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency("onnxruntime", "running a model", "local") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.count()
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # shapes vary from run to run
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a family of its own, without a common parent
        raise BundleError(f"onnxruntime {onnxruntime.__version__} cannot open {path}: {error}") from error
    log.info("opened %s with %s", path, session.get_providers()[0])
    return session


_sessions: ProcessCache[Session] = ProcessCache(CACHE_BYTES, cost=lambda session: session.bytes)


def open_session(bundle: Bundle) -> Session:
    """Return this process's session for a bundle, opening it at first use."""
    return _sessions.get((bundle.hash, bundle.model, threads.count()), lambda: Session(bundle))
