"""How graphs are opened on the CPU, and how one is packed for this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparktasks.runtime import threads
from sparktasks.runtime.accuracy import with_level
from sparktasks.runtime.devices import CPU


def graph_source(path: Path, level: int, options: Any) -> str | bytes:
    """Return what a session is made of: the path, or the content with an accuracy level set."""
    if not level:
        return str(path)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    return with_level(path, level)


def session_options() -> Any:
    """Return options with as many threads as the task has, none of which spins."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.count()
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # shapes vary from run to run
    options.log_severity_level = 3
    return options


def pack(model: str, target: str, level: str = "0") -> None:
    """Write a graph, optimised for this machine's CPU, to ``target``, and beside it its weights, packed as the kernels
    want them.

    ``level`` is the accuracy level of products by weights in blocks that have none; 0 leaves them as they are.
    """
    import onnxruntime

    options = session_options()
    options.optimized_model_filepath = target
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", f"{Path(target).name}.data"
    )
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    onnxruntime.InferenceSession(graph_source(Path(model), int(level), options), options, providers=[CPU])
