"""The `sparktasks` command."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import sparktasks
from sparktasks.errors import DataError, DeliveryError, MissingDependency, SparkTasksError

DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 130
_HELP = f"""exit codes of run: {DONE} the output is written; {FAILED} the job failed while it ran; {REFUSED} the job was refused before
anything ran (a wrong key, column or model); {STOPPED} stopped by Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; raises `SystemExit` with the exit code where it did not succeed.

    Success returns instead of exiting: some schedulers call this function, and take any `SystemExit` for a failure.
    """
    asked = _parser().parse_args(arguments)
    try:
        _need_spark()
        asked.act(asked)
    except KeyboardInterrupt:
        print("sparktasks: stopped", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except Exception as error:
        raise SystemExit(_failed(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sparktasks", description="ML tasks as Spark annotators.", epilog=_HELP)
    parser.add_argument("--version", action="version", version=f"sparktasks {sparktasks.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run a job file", description="Read, annotate and write, as a job file says.", epilog=_HELP)
    run.add_argument("job", metavar="JOB.yaml")
    run.set_defaults(act=_run)
    commands.add_parser("tasks", help="list the tasks").set_defaults(act=_tasks)
    inspect = commands.add_parser("inspect", help="describe a bundle, and which annotators take it")
    inspect.add_argument("bundle", metavar="BUNDLE", help="a folder, the name of a starter, or a hub id")
    inspect.add_argument("--file", help="the ONNX file in it; without this, model.onnx")
    inspect.set_defaults(act=_inspect)
    _add_optimize(commands)
    _add_cache(commands)
    return parser


def _add_optimize(commands: Any) -> None:
    optimize = commands.add_parser(
        "optimize", help="make an int8 bundle", description="Make an int8 form of a bundle, and measure how far it agrees."
    )
    optimize.add_argument("bundle", metavar="BUNDLE", help="a folder, the name of a starter, or a hub id")
    optimize.add_argument("--int8", action="store_true", required=True, help="dynamic quantisation, weights in int8 by channel")
    optimize.add_argument("--file", help="the ONNX file in it; without this, model.onnx")
    optimize.add_argument("--out", help="the folder to write; without this, BUNDLE-int8 in the working directory")
    optimize.add_argument("--texts", metavar="FILE", help="texts to compare both models on, one a line")
    optimize.set_defaults(act=_optimize)


def _add_cache(commands: Any) -> None:
    cache = commands.add_parser("cache", help="look after the models kept on this machine")
    cache.add_argument(
        "what",
        choices=["list", "verify", "clear"],
        help="list them; verify: read them whole, remove damaged ones, exit with 1 if there were any; clear: remove what is not in use",
    )
    cache.set_defaults(act=_cache)


def _need_spark() -> None:
    try:
        import pyspark  # noqa: F401
    except ImportError as error:
        raise MissingDependency("pyspark", "the sparktasks command", "local") from error


def _run(asked: argparse.Namespace) -> None:
    from sparktasks.jobs.run import run_job
    from sparktasks.jobs.session import session_of
    from sparktasks.jobs.spec import load_job

    job = load_job(asked.job)
    with session_of(job) as spark:
        summary = run_job(job, spark)
    print("\n".join(summary.lines()))


def _tasks(asked: argparse.Namespace) -> None:
    from sparktasks.jobs.describe import task_lines

    print("\n".join(task_lines()))


def _inspect(asked: argparse.Namespace) -> None:
    from sparktasks.jobs.describe import bundle_lines

    print("\n".join(bundle_lines(asked.bundle, asked.file)))


def _optimize(asked: argparse.Namespace) -> None:
    from sparktasks.jobs.describe import optimized_lines

    print("\n".join(optimized_lines(asked.bundle, asked.file, asked.out, asked.texts)))


def _cache(asked: argparse.Namespace) -> None:
    from sparktasks.jobs.describe import cache_lines

    lines = cache_lines(asked.what)
    print("\n".join(lines))
    if asked.what == "verify" and len(lines) > 1:
        raise SystemExit(FAILED)


def _failed(error: Exception) -> int:
    """Say what went wrong: in one line where the job asked for something impossible, with the whole story otherwise."""
    if _was_refused(error):
        # Spark Connect puts the server's stack trace into the message.
        message = str(error).partition("\n\nJVM stacktrace:")[0].strip()
        print(f"sparktasks: {type(error).__name__}: {message}", file=sys.stderr)
        return REFUSED
    traceback.print_exception(error)
    print(f"sparktasks: failed: {type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}", file=sys.stderr)
    return FAILED


def _was_refused(error: Exception) -> bool:
    """Tell errors found before anything ran: ours, and those of Spark's analysis of columns, paths and SQL."""
    if isinstance(error, SparkTasksError):
        return not isinstance(error, (DataError, DeliveryError))
    try:
        from pyspark.errors import AnalysisException
    except ImportError:
        return False
    return isinstance(error, AnalysisException)


if __name__ == "__main__":
    main()
