"""Spark types of annotation columns, derived from the Arrow types of `sparktasks.kernels.columns`."""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_type
from pyspark.sql.types import ArrayType, DataType, StructField, StructType

from sparktasks.kernels.columns import AUDIO, IMAGE, KINDS, TEXT, Kind


def spark_type(dtype: pa.DataType) -> DataType:
    """Return the Spark type of an Arrow type."""
    converted: DataType = from_arrow_type(dtype)
    return converted


def arrow_type(dtype: DataType) -> pa.DataType:
    """Return the Arrow type in which Spark hands over a column."""
    return to_arrow_type(dtype)


ANNOTATIONS = spark_type(TEXT.column)
"""The type of text columns."""


def kind_of_type(dtype: DataType | None) -> Kind | None:
    """Return the kind of annotation column that a Spark type is; None for any other type."""
    # Spark keeps no name of a struct; its fields' names tell what it is.
    if not (isinstance(dtype, ArrayType) and isinstance(dtype.elementType, StructType)):
        return None
    for kind in (TEXT, IMAGE, AUDIO):
        if kind.fits(dtype.elementType.names):
            return kind
    return None


def is_annotations(dtype: DataType | None) -> bool:
    """Tell whether a Spark type has the shape of an annotation column of any kind."""
    return kind_of_type(dtype) is not None


def column_type(annotator_type: str) -> DataType:
    """Return the Spark type of the columns of an annotator type."""
    return spark_type(KINDS[annotator_type].column)


def annotation_field(name: str, annotator_type: str) -> StructField:
    """Return the field of a column that an annotator writes."""
    return StructField(name, column_type(annotator_type), metadata={"annotatorType": annotator_type})
