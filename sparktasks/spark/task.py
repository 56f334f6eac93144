"""What a task of Spark has, told to the kernels' side; light enough to be imported by every fresh worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark import SparkFiles, TaskContext

from sparktasks.kernels.worker import TaskResources, prepare


def prepare_worker(sent: Sequence[tuple[Any, ...]]) -> None:
    """Tell this process what was sent to it, and which cores (``spark.task.cpus``) and GPU its task has.

    ``sent`` holds the fields of `sparktasks.kernels.parcels.Parcel`.
    """
    context = TaskContext.get()
    if context is None:
        prepare(sent, TaskResources(find_file=SparkFiles.get))
        return
    resource = context.resources().get("gpu")
    gpu = None
    if resource and resource.addresses[0].isdigit():
        gpu = int(resource.addresses[0])
    prepare(sent, TaskResources(context.cpus(), gpu, SparkFiles.get))
