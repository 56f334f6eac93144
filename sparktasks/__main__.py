"""The `sparktasks` command for ``python -m sparktasks``, and for spark-submit:

spark-submit --master yarn "$(sparktasks --script)" run JOB.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    # A script's own folder leads the search path, where our modules would be found by names that are not ours, such
    # as `spark`.
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != HERE]

    from sparktasks.cli import main

    main()
