"""YAML as people expect it of a job file: every key once, and numbers with exponents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sparktasks.errors import JobError


def read_yaml(file: Path) -> Any:
    """Return what a file says; `JobError` names the place where it is not YAML in UTF-8."""
    text = _text_of(file)
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise JobError(f"{file.name} is not valid YAML: {error}") from error


def _text_of(file: Path) -> str:
    raw = file.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise JobError(
            f"{file.name} is not written in UTF-8: line {line} holds the byte {raw[error.start]:#04x}, as Latin-1 and "
            "other encodings write a letter. Save it as UTF-8"
        ) from None


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            # Lists and mappings are no keys of ours, which is said later.
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key.value!r} is given twice, again in line {line}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# 1e-3 is a number, as in YAML 1.2; PyYAML takes it for a string.
_EXPONENT = re.compile(r"^[-+]?\d+[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
