"""The `sparktasks` command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sparktasks
from sparktasks.errors import MissingDependency
from sparktasks.jobs.failures import failure, refusal

DONE, FAILED, REFUSED, STOPPED, TERMINATED = 0, 1, 2, 130, 143
_HELP = f"""exit codes of run: {DONE} the output is written; {FAILED} the job failed while it ran; {REFUSED} the job was
refused before anything ran (a wrong key, column, format or model, or another run is writing to the output);
{STOPPED} stopped by Ctrl-C; {TERMINATED} stopped by SIGTERM"""

_FORMS = {
    "int8": "dynamic quantisation: weights in int8 by channel, activations by the range of each run; for encoders",
    "int8w": "weights only, in 8 bits by blocks; also for decoders",
    "int4": "weights only, in 4 bits by blocks: the smallest form; changes many answers of small models",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; raises `SystemExit` with the exit code where it did not succeed.

    Success returns instead of exiting: some schedulers call this function, and take any `SystemExit` for a failure.
    """
    options = _parser().parse_args(arguments)
    try:
        if getattr(options, "needs_spark", True):
            _need_spark()
        with _terminable():
            options.act(options)
    except KeyboardInterrupt:
        print("sparktasks: stopped", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except _Terminated:
        print("sparktasks: stopped by SIGTERM", file=sys.stderr)
        raise SystemExit(TERMINATED) from None
    except Exception as error:
        raise SystemExit(_failed(error, getattr(options, "traceback", False))) from None


class _Terminated(SystemExit):
    """SIGTERM came; raised where the program is, so that locks and sessions are released on the way out."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into `_Terminated` while the block runs, unless the application handles it already."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise _Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sparktasks", description="ML tasks as Spark annotators.", epilog=_HELP)
    parser.add_argument("--version", action="version", version=f"sparktasks {sparktasks.__version__}")
    script = str(Path(__file__).with_name("__main__.py"))
    parser.add_argument(
        "--script", action="version", version=script, help="print the path of the script for spark-submit"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="run a job file", description="Read, annotate and write, as a job file says.", epilog=_HELP
    )
    run.add_argument("job", metavar="JOB.yaml")
    run.add_argument("--traceback", action="store_true", help="print the traceback of a failure, not only its reason")
    run.set_defaults(act=_run)
    commands.add_parser("tasks", help="list the tasks").set_defaults(act=_tasks)
    init = commands.add_parser("init", help="write commented example job files, and Spark settings")
    init.add_argument("folder", metavar="FOLDER", nargs="?", default="conf", help="where to; without this, conf")
    init.set_defaults(act=_init)
    inspect = commands.add_parser("inspect", help="describe a bundle, and which annotators take it")
    inspect.add_argument("bundle", metavar="BUNDLE", help="a folder, the name of a starter, or a hub id")
    inspect.add_argument("--file", help="the ONNX file in it; without this, model.onnx")
    inspect.set_defaults(act=_inspect)
    _add_export(commands)
    _add_optimize(commands)
    _add_cache(commands)
    return parser


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export",
        help="make an ONNX folder of a model in PyTorch",
        description="Write a model in PyTorch as an ONNX folder that the annotators take, and check that both give the "
        "same answers. Needs the extra 'export'.",
    )
    export.add_argument("model", metavar="MODEL", help="a hub id, or a folder with weights in PyTorch")
    export.add_argument("folder", metavar="FOLDER", help="the folder to write")
    export.add_argument("--task", help="what for; without this, what config.json's architectures say")
    export.add_argument("--force", action="store_true", help="replace an earlier export in FOLDER")
    export.add_argument("--traceback", action="store_true", help="print the traceback of a failure")
    export.set_defaults(act=_export, needs_spark=False)


def _add_optimize(commands: Any) -> None:
    optimize = commands.add_parser(
        "optimize",
        help="make a smaller, faster form of a bundle",
        description="Make forms of a bundle with smaller weights, measure how far each agrees with it and how fast it "
        "is, and recommend one. Give one or several of --int8, --int8w and --int4; each gets a folder of its own.",
    )
    optimize.add_argument("bundle", metavar="BUNDLE", help="a folder, the name of a starter, or a hub id")
    for precision, about in _FORMS.items():
        name = f"--{precision}"
        optimize.add_argument(name, dest="precisions", action="append_const", const=precision, default=[], help=about)
    optimize.add_argument("--file", help="the ONNX file in it; without this, model.onnx")
    optimize.add_argument(
        "--out",
        help="the folder to write, OUT-PRECISION for several forms; without this, BUNDLE-PRECISION where you are",
    )
    optimize.add_argument(
        "--texts", metavar="FILE", help="texts to compare the models on, one a line, best 200 or more"
    )
    optimize.set_defaults(act=_optimize)


def _add_cache(commands: Any) -> None:
    cache = commands.add_parser("cache", help="look after the models kept on this machine")
    cache.add_argument(
        "what",
        choices=["list", "verify", "clear"],
        help=(
            "list them; verify: read them whole, remove damaged ones, exit with 1 if there were any; clear: "
            "remove what is not in use"
        ),
    )
    cache.set_defaults(act=_cache)


def _need_spark() -> None:
    try:
        import pyspark  # noqa: F401
    except ImportError as error:
        raise MissingDependency("pyspark", "the sparktasks command", "local") from error


def _run(options: argparse.Namespace) -> None:
    from sparktasks.jobs.loading import load_job
    from sparktasks.jobs.run import run_job
    from sparktasks.jobs.session import session_of

    job = load_job(options.job)
    with session_of(job) as spark:
        summary = run_job(job, spark)
    print("\n".join(summary.lines()))


def _tasks(options: argparse.Namespace) -> None:
    from sparktasks.jobs.describe import task_lines

    print("\n".join(task_lines()))


def _init(options: argparse.Namespace) -> None:
    from sparktasks.jobs.examples import write_examples

    print("\n".join(write_examples(options.folder)))


def _inspect(options: argparse.Namespace) -> None:
    from sparktasks.jobs.describe import bundle_lines

    print("\n".join(bundle_lines(options.bundle, options.file)))


def _export(options: argparse.Namespace) -> None:
    from sparktasks.export.model import export_model

    print("\n".join(export_model(options.model, options.folder, options.task, replace=options.force).lines()))


def _optimize(options: argparse.Namespace) -> None:
    from sparktasks.jobs.describe import optimized_lines

    print("\n".join(optimized_lines(options.bundle, options.file, options.out, options.texts, options.precisions)))


def _cache(options: argparse.Namespace) -> None:
    from sparktasks.jobs.describe import cache_lines

    lines = cache_lines(options.what)
    print("\n".join(lines))
    # Below the first line stand the damaged models.
    if options.what == "verify" and len(lines) > 1:
        raise SystemExit(FAILED)


def _failed(error: Exception, with_traceback: bool) -> int:
    """Say in one line what went wrong and where the traceback is; return the exit code."""
    if with_traceback:
        traceback.print_exception(error)
    refusal_reason = refusal(error)
    if refusal_reason:
        print(f"sparktasks: {refusal_reason}", file=sys.stderr)
        return REFUSED
    if not with_traceback:
        print(f"sparktasks: Traceback in {_save_traceback(error)}", file=sys.stderr)
    print(f"sparktasks: failed: {failure(error)}", file=sys.stderr)
    return FAILED


def _save_traceback(error: Exception) -> str:
    """Write an error's traceback to a file and return its name; to stderr where no file can be written."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="sparktasks-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
    except OSError:
        traceback.print_exception(error)
        return "the lines above"
    return name


if __name__ == "__main__":
    main()
