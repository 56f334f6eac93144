"""Reading a job's input and writing its output, in any format that Spark knows."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

from sparktasks.jobs.spec import ReadSection, WriteSection


def read(spark: SparkSession, section: ReadSection) -> DataFrame:
    """Return the input's rows."""
    reader = spark.read.options(**section.options)
    if section.table:
        frame = reader.table(section.table)
    else:
        reader = reader.format(str(section.format))
        if section.schema:
            reader = reader.schema(section.schema)
        frame = reader.load(section.path)
    if section.where:
        frame = frame.where(section.where)
    if section.columns:
        frame = frame.selectExpr(*section.columns)
    return frame


def write(frame: DataFrame, section: WriteSection, mode: str) -> None:
    """Write a frame; what Spark has against its columns or the path, it says before it runs anything."""
    writer = frame.write.mode(mode).options(**section.options)
    if section.format:
        writer = writer.format(section.format)
    if section.partitionBy:
        writer = writer.partitionBy(section.partitionBy)
    if section.table:
        writer.saveAsTable(section.table)
    else:
        writer.save(section.path)
