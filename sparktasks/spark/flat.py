"""Nested columns as flat ones, in Catalyst: the other side of `sparktasks.kernels.flat`, which tells the forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StringType, StructType

from sparktasks.kernels.flat import flat_types as flat_arrow_types
from sparktasks.spark.types import arrow_type, is_annotations, spark_type


def flat_types(dtype: DataType) -> list[DataType]:
    """Return the types of the flat columns that come out for one column of type ``dtype``."""
    return [spark_type(part) for part in flat_arrow_types(arrow_type(dtype))]


def _is_nested(dtype: DataType) -> bool:
    return isinstance(dtype, (StructType, MapType, ArrayType))


# -- to Python


def flat_columns(column: Column, dtype: DataType) -> list[Column]:
    """Take a column apart."""
    if isinstance(dtype, StringType):
        return [readable(column)]
    if isinstance(dtype, ArrayType) and isinstance(dtype.elementType, StringType):
        return [F.transform(column, readable)]
    return [part(column) for part in _parts(dtype)]


def readable(column: Column) -> Column:
    """Put U+FFFD in the place of bytes that are not UTF-8, over which Spark's own conversion to pandas would fail."""
    if hasattr(F, "make_valid_utf8"):
        valid: Column = F.make_valid_utf8(column)
        return valid
    return F.decode(F.encode(column, "UTF-8"), "UTF-8")  # since Spark 4 this raises an error instead


Part = Callable[[Column], Column]


def _parts(dtype: DataType) -> list[Part]:
    """Return the functions that take the flat columns out of a column of this type."""
    if isinstance(dtype, ArrayType) and _is_nested(dtype.elementType):
        parts = _parts(dtype.elementType)
        if is_annotations(dtype):
            # No annotation in a list is null, so that the first part, whether the struct is there, is left out.
            parts = parts[1:]
        return [_each(part) for part in parts]
    if isinstance(dtype, MapType):
        keys = _parts_of(F.map_keys, ArrayType(dtype.keyType))
        return keys + _parts_of(F.map_values, ArrayType(dtype.valueType))
    if isinstance(dtype, StructType):
        fields: list[Part] = [lambda column: column.isNotNull()]
        for field in dtype.fields:
            fields += _parts_of(itemgetter(field.name), field.dataType)
        return fields
    return [lambda column: column]


def _each(part: Part) -> Part:
    return lambda column: F.transform(column, part)


def _parts_of(first: Part, dtype: DataType) -> list[Part]:
    """Return the parts of what ``first`` takes out of a column, and what is of this type."""
    return [_after(first, part) for part in _parts(dtype)]


def _after(first: Part, part: Part) -> Part:
    return lambda column: part(first(column))


# -- from Python


def assembled(flat: Sequence[Column], dtype: DataType) -> Column:
    """Put a column together from its flat columns; the inverse of `flat_columns`."""
    return _assembled(iter(flat), dtype).cast(dtype)


def _assembled(flat: Iterator[Column], dtype: DataType) -> Column:
    """Put the next flat columns together to one of this type."""
    if isinstance(dtype, ArrayType) and _is_nested(dtype.elementType):
        return _array(flat, dtype)
    if isinstance(dtype, MapType):
        keys = _assembled(flat, ArrayType(dtype.keyType))
        return F.map_from_arrays(keys, _assembled(flat, ArrayType(dtype.valueType)))
    if isinstance(dtype, StructType):
        is_there = next(flat)
        return F.when(is_there, _struct(flat, dtype))
    return next(flat)


def _struct(flat: Iterator[Column], dtype: StructType) -> Column:
    return F.struct(*[_assembled(flat, field.dataType).alias(field.name) for field in dtype.fields])


def _array(flat: Iterator[Column], dtype: ArrayType) -> Column:
    """Put the lists of the elements' parts side by side, and each element together."""
    count = len(flat_types(dtype))
    if count == 1:
        return F.transform(next(flat), lambda part: _assembled(iter([part]), dtype.elementType))
    # Without names of their own, the fields of the zipped structs would be named after the columns, or by number.
    names = [f"f{index}" for index in range(count)]
    zipped = F.arrays_zip(*[next(flat).alias(name) for name in names])

    def element(parts: Column) -> Column:
        columns = iter([parts[name] for name in names])
        if is_annotations(dtype):
            return _struct(columns, dtype.elementType)  # type: ignore[arg-type]
        return _assembled(columns, dtype.elementType)

    return F.transform(zipped, element)
