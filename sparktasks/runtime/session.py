"""The only place where onnxruntime sessions are configured, and the process-wide cache that keeps them."""

from __future__ import annotations

import ctypes
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sparktasks.errors import BundleError, MissingDependency, ParamError
from sparktasks.runtime import threads
from sparktasks.runtime.accuracy import level_for, missing_level
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.devices import CPU, PROVIDERS, assigned_gpu, providers_for
from sparktasks.runtime.session_options import graph_source, session_options
from sparktasks.runtime.sharing import GRAPH, shared_graph
from sparktasks.runtime.store import Entry

log = logging.getLogger(__name__)

CACHE_BYTES = 4 * 1024**3
RUN_SECONDS = 600.0
_LOOPS = frozenset({"Loop", "Scan"})
_ELEMENT_TYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}


class RunFailed(RuntimeError):
    """onnxruntime could not run a graph on what it was fed."""


class Session:
    """An onnxruntime session that is fed by name; what the graph does not ask for is left out."""

    def __init__(self, bundle: Bundle, device: str = "auto", seconds: float = RUN_SECONDS) -> None:
        self._session, self._entry = _open(bundle, device)
        # Only a graph with loops can run for ever, and a clock costs every run a thread.
        self._seconds = seconds if bundle.graph.all_operators & _LOOPS else None
        self.bytes = bundle.weight_bytes
        self.inputs: dict[str, Any] = {
            port.name: _ELEMENT_TYPES.get(port.type, np.float32) for port in self._session.get_inputs()
        }
        self.outputs: list[str] = [port.name for port in self._session.get_outputs()]

    @property
    def provider(self) -> str:
        """The onnxruntime execution provider that comes first for this session."""
        return str(self._session.get_providers()[0])

    def run(self, outputs: list[str], **feeds: np.ndarray) -> list[np.ndarray]:
        """Run the graph; feeds are converted to the element types it wants. Raises `RunFailed` where onnxruntime
        does."""
        wanted = {name: feeds[name].astype(dtype, copy=False) for name, dtype in self.inputs.items()}
        with self._clock() as options:
            try:
                found: list[np.ndarray] = self._session.run(outputs, wanted, options)
            except Exception as error:  # onnxruntime raises a family of its own, without a common parent
                raise RunFailed(self._fault(options, error)) from error
        return found

    @contextmanager
    def _clock(self) -> Iterator[Any]:
        """Give the options of a run that is ended when its time is over; None where it needs no clock."""
        if self._seconds is None:
            yield None
            return
        import onnxruntime

        options = onnxruntime.RunOptions()
        timer = threading.Timer(self._seconds, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            yield options
        finally:
            timer.cancel()

    def _fault(self, options: Any, error: Exception) -> str:
        if options is not None and options.terminate:
            return f"the model ran for more than {self._seconds:g} seconds (maxRunSeconds) and was ended"
        return f"onnxruntime could not run the model: {first_line(error)}"

    def run_tensors(
        self, feeds: Mapping[str, Tensor], outputs: Sequence[str], into: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Run the graph on tensors, without a copy of any; the first output comes to the CPU, the others stay where
        they are made.

        ``into`` names tensors that take outputs, instead of new ones; they may be fed too, where the graph can do with
        that.
        """
        binding = self._session.io_binding()
        for name, tensor in feeds.items():
            binding.bind_ortvalue_input(name, tensor)
        binding.bind_output(outputs[0])
        for name in outputs[1:]:
            if into and name in into:
                binding.bind_ortvalue_output(name, into[name])
            else:
                binding.bind_output(name, *self._place)
        with self._clock() as options:
            try:
                self._session.run_with_iobinding(binding, options)
            except Exception as error:
                raise RunFailed(self._fault(options, error)) from error
        found: list[Tensor] = binding.get_outputs()
        return found

    @cached_property
    def _place(self) -> tuple[str, int]:
        """Device and number that outputs stay on."""
        if self.provider != PROVIDERS["cuda"]:
            return "cpu", 0
        return "cuda", int(self._session.get_providersession_options()[self.provider].get("device_id", 0))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message: onnxruntime's go on for pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


Tensor = Any  # onnxruntime's OrtValue: an array where a session reads and leaves it


def tensor(array: np.ndarray) -> Tensor:
    """Return an array as a tensor that shares its memory."""
    import onnxruntime

    whole = array if array.flags.c_contiguous else np.ascontiguousarray(array)  # which would make an array of a scalar
    return onnxruntime.OrtValue.ortvalue_from_numpy(whole)


def view(value: Tensor) -> np.ndarray:
    """Return a tensor's content, read-only; what lies on the CPU is not copied, unless onnxruntime is too old to lend
    it."""
    lends = hasattr(value, "__dlpack__") and value.device_name() == "cpu"
    found: np.ndarray = np.from_dlpack(value) if lends else value.numpy()
    return found


def writable(value: Tensor) -> np.ndarray:
    """Return the content of a tensor on the CPU, to be changed where it lies; it is valid as long as the tensor."""
    dtype = np.dtype(_ELEMENT_TYPES[value.data_type()])
    count = int(np.prod(value.shape()))
    memory: Any = (ctypes.c_char * (count * dtype.itemsize)).from_address(value.data_ptr()) if count else b""
    found: np.ndarray = np.frombuffer(memory, dtype).reshape(value.shape())
    return found


def _open(bundle: Bundle, device: str) -> tuple[Any, Entry | None]:
    """Open a bundle's graph: on the CPU, the machine's packed form of it where there is one."""
    try:
        providers = providers_for(device)
    except ImportError as error:
        if isinstance(error, MissingDependency):
            raise
        raise MissingDependency("onnxruntime", "running a model", "local") from error
    bundle.check_unchanged()
    is_cpu = providers[0][0] == CPU
    entry = shared_graph(bundle) if is_cpu else None
    if entry is not None:
        try:
            return _session(entry.content / GRAPH, providers, packed=True), entry
        except BundleError as error:
            log.warning("the packed form of %s is of no use: %s", bundle.model_path, error)
    session = _session(bundle.model_path, providers, level=level_for(bundle.graph) if is_cpu else 0)
    if device != "auto" and session.get_providers()[0] != providers[0][0]:
        raise ParamError(
            f"device={device!r}: onnxruntime has {providers[0][0]}, but it does not start on {socket.gethostname()}. "
            "Are the driver and its libraries installed there? device='auto' falls back to the CPU"
        )
    return session, None


def _session(path: Path, providers: list[tuple[str, dict[str, Any]]], packed: bool = False, level: int = 0) -> Any:
    """Open an ONNX file; its products by weights in blocks that have no accuracy level get this one, unless it is 0."""
    import onnxruntime

    options = session_options()
    if packed:  # it is optimised already
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(graph_source(path, level, options), options, providers=providers)
    except Exception as error:  # onnxruntime raises a family of its own, without a common parent
        raise BundleError(f"onnxruntime {onnxruntime.__version__} cannot open {path}: {error}") from error
    session._model_bytes = None  # onnxruntime would keep them as long as the session lives
    log.info("opened %s with %s", path, session.get_providers()[0])
    return session


_sessions: ProcessCache[Session] = ProcessCache(CACHE_BYTES, cost=lambda session: session.bytes)


def open_session(bundle: Bundle, device: str = "auto", seconds: float = RUN_SECONDS) -> Session:
    """Return this process's session for a bundle on a device, opening it at first use.

    A run of a graph with loops that takes more than so many seconds is ended.
    """
    key = (bundle.hash, bundle.model, threads.count(), device, assigned_gpu(), seconds, missing_level())
    return _sessions.get(key, lambda: Session(bundle, device, seconds))
