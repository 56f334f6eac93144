"""The error tree.

SparkTasksError
├── ColumnError        (ValueError)         a column is missing, ambiguous or of the wrong type
├── ParamError         (ValueError)         a param's name or value is not allowed
├── BundleError        (ValueError)         a model folder is incomplete, damaged or contradicts itself
├── DataError          (ValueError)         a fault in one row's data, where onError="fail" asks for it
├── DeliveryError      (OSError)            a bundle did not reach the machine that needs it
├── SavedModelError    (ValueError)         a saved stage cannot be read by this version
├── JobError           (ValueError)         a job file asks for something that does not exist
├── OutputError        (RuntimeError)       a job's output is not what the job wrote
└── MissingDependency  (ImportError)        an optional package is not installed
"""

from __future__ import annotations

import difflib
import re
import socket
import sys
from collections.abc import Iterable

_ALL_SHOWN = 12


class SparkTasksError(Exception):
    """Parent of every error that sparktasks raises on purpose."""


class ColumnError(SparkTasksError, ValueError):
    """A column is missing, ambiguous or of the wrong type."""


class ParamError(SparkTasksError, ValueError):
    """A param's name or value is not allowed."""


class BundleError(SparkTasksError, ValueError):
    """A model folder is incomplete, damaged or contradicts itself."""


class DataError(SparkTasksError, ValueError):
    """A fault in one row's data, where ``onError="fail"`` asks for it."""


class DeliveryError(SparkTasksError, OSError):
    """A bundle did not reach the machine that needs it."""


class SavedModelError(SparkTasksError, ValueError):
    """A saved stage cannot be read by this version."""


class JobError(SparkTasksError, ValueError):
    """A job file asks for something that does not exist."""


class OutputError(SparkTasksError, RuntimeError):
    """A job's output is not what the job wrote: rows are missing, or another run took it over."""


class MissingDependency(SparkTasksError, ImportError):
    """An optional package is not installed; the message carries the command that installs it."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        here = f"{socket.gethostname()} ({sys.executable})"
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed on {here}. Run: pip install "
            f"'sparktasks[{extra}]'"
        )
        self.package = package

    # Exceptions pickle by their args alone, but this constructor takes others.
    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[Exception], args: tuple[object, ...], state: dict[str, object]) -> Exception:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of the allowed names, or an empty string.

    >>> did_you_mean("aggregaton", ["aggregation", "stride"])
    " Did you mean 'aggregation'?"
    """
    spellings = {name.lower(): name for name in sorted(allowed)}
    matches = difflib.get_close_matches(name.lower(), list(spellings), n=1)
    if not matches:
        return ""
    return f" Did you mean {spellings[matches[0]]!r}?"


def listed(names: Iterable[object]) -> str:
    """Write names as a readable list for a message: ``'a', 'b'``, or ``none``.

    Of many names, those that differ only in their numbers, as the caches of a language model do, are shown once.

    >>> listed(f"present.{layer}.key" for layer in range(30))
    "'present.0.key' and 29 more"
    """
    every = list(names)
    shown = every
    if len(every) > _ALL_SHOWN:
        shown = _distinct_kinds(every)
    text = ", ".join(map(repr, shown)) or "none"
    hidden = len(every) - len(shown)
    return f"{text} and {hidden} more" if hidden else text


def _distinct_kinds(names: Iterable[object]) -> list[object]:
    """Return the first of all names that differ only in their numbers."""
    kinds: dict[str, object] = {}
    for name in names:
        kind = re.sub(r"\d+", "0", repr(name))
        kinds.setdefault(kind, name)
    return list(kinds.values())
