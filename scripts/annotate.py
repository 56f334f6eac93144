"""Run a job file through spark-submit; the session, the master and the cluster's settings are spark-submit's.

spark-submit --master yarn --properties-file conf/spark/cluster.conf scripts/annotate.py JOB.yaml

Where sparktasks was installed from a wheel, `"$(sparktasks --script)" run JOB.yaml` does the same.
"""

from __future__ import annotations

import sys

from sparktasks.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
