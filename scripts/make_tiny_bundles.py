"""Make tiny randomly initialised ONNX bundles and their torch twins for the parity tests.

    python scripts/make_tiny_bundles.py --out build/bundles                # every bundle
    python scripts/make_tiny_bundles.py --out build/bundles --only bert-text-classification t5-text2text-generation
    python scripts/make_tiny_bundles.py --out build/bundles --committed    # refresh tests/bundles and tests/goldens

A bundle is `<out>/<name>`, its torch twin `<out>/torch/<name>`. Needs the extra `parity`. tiny_bundles/build.py tells
what makes a bundle, and where another modality goes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tiny_bundles.build import BUNDLES, COMMITTED, build_all, commit


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the bundles and torch twins")
    parser.add_argument("--only", nargs="+", choices=sorted(BUNDLES), metavar="NAME", help="bundles to build")
    parser.add_argument(
        "--committed", action="store_true", help="copy the small subset to tests/bundles and record tests/goldens"
    )
    options = parser.parse_args()
    names = options.only or (COMMITTED if options.committed else list(BUNDLES))
    build_all(names, options.out)
    if options.committed:
        commit(names, options.out)


if __name__ == "__main__":
    main()
