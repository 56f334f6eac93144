"""Bundles and texts of the parity suite."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

from tiny_bundles.build import build_all  # noqa: E402

from .texts import HAS_SHARED, SHARED, Pair, generation_prompts, sample_pairs, sample_texts  # noqa: E402

torch.set_num_threads(1)  # tiny networks: two threads cost ten times as much when something else runs


def pytest_report_header() -> str:
    """Say which texts are run."""
    return f"larger data: {SHARED if HAS_SHARED else 'not there, so fewer texts and no real models are tried'}"


class Bundles:
    """Bundles and torch twins in one folder, each built when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.root = folder

    def folder(self, name: str) -> Path:
        """Return the bundle's folder."""
        self.twin(name)
        return self.root / name

    def twin(self, name: str) -> Path:
        """Return the folder of the bundle's torch checkpoint."""
        found = self.root / "torch" / name
        if not (found / "tokenizer.json").exists():
            build_all([name], self.root)
        return found


def recipe_hash() -> str:
    """Return a hash of everything that bundles are made from."""
    paths = [*sorted((SCRIPTS / "tiny_bundles").glob("*.py")), *sorted((ROOT / "tests/data").glob("*.*"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Return the bundles, kept between runs where SPARKTASKS_PARITY_CACHE names a folder."""
    kept = os.environ.get("SPARKTASKS_PARITY_CACHE")
    return Bundles(Path(kept) / recipe_hash() if kept else tmp_path_factory.mktemp("bundles"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one bundle in one process, where several run: each builds what it needs."""
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        item.add_marker(pytest.mark.xdist_group(str(name or item.path.stem)))


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Return more than a thousand texts."""
    return sample_texts()


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    """Return three hundred text pairs."""
    return sample_pairs(300)


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Return two hundred prompts for text generation."""
    return generation_prompts(200)
