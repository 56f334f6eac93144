"""Params: one line each, checked, and Spark's own."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest
from pyspark.ml.param import Param
from pyspark.ml.tuning import ParamGridBuilder

from sparktasks.errors import ParamError
from sparktasks.spark.params import Declared, P, at_least, between, one_of, param


class Sample(Declared):
    count: P[int | None] = param("how many", default=1, check=at_least(1))
    share: P[float] = param("which part", default=0.5, check=between(0, 1))
    names: P[list[str]] = param("which names", default=["a"])
    mode: P[str] = param("which way", default="x", check=one_of("x", "y"))
    flag: P[bool] = param("whether", default=False)


class Child(Sample):
    mode: P[str] = param("which way", default="y", check=one_of("y", "z"))


def test_params_are_spark_params() -> None:
    sample = Sample(count=3)
    assert isinstance(sample.count, Param)
    assert sample.count.parent == sample.uid
    assert "count: how many (default: 1, current: 3)" in sample.explainParams()
    assert [
        p["count"]
        for p in ({k.name: v for k, v in m.items()} for m in ParamGridBuilder().addGrid(sample.count, [1, 2]).build())
    ] == [1, 2]
    assert sample.copy({sample.count: 7}).getCount() == 7
    assert sample.getCount() == 3


def test_child_overrides_a_default_and_a_check() -> None:
    assert (Child().getMode(), Sample().getMode()) == ("y", "x")
    with pytest.raises(ParamError, match="one of 'y', 'z'"):
        Child(mode="x")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"count": None}, None),
        ({"count": np.int64(3)}, 3),
        ({"count": 2.0}, 2),
        ({"share": 1}, 1.0),
        ({"names": "b"}, ["b"]),
        ({"names": ("b", "c")}, ["b", "c"]),
    ],
)
def test_values_are_converted(given: dict[str, object], kept: object) -> None:
    assert Sample(**given).getOrDefault(next(iter(given))) == kept


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "count=0 is not allowed: count takes int or None, at least 1"),
        ({"count": "3"}, "count='3' is not allowed"),
        ({"count": True}, "count=True is not allowed"),
        ({"count": 2.5}, "count=2.5 is not allowed"),
        ({"share": 1.5}, "float, between 0 and 1"),
        ({"names": [1]}, r"takes list\[str\]"),
        ({"mode": "z"}, "one of 'x', 'y'"),
        ({"flag": 1}, "flag=1 is not allowed: flag takes bool"),
        ({"cuont": 1}, "no param 'cuont'. Did you mean 'count'?"),
    ],
)
def test_wrong_values_say_what_is_allowed(given: dict[str, object], message: str) -> None:
    with pytest.raises(ParamError, match=message.replace("?", r"\?")) as caught:
        Sample(**given)
    assert "Sample_" in str(caught.value)


def test_signature_setters_and_pickle() -> None:
    assert str(inspect.signature(Sample)).startswith("(*, count: int | None = 1, share: float = 0.5")
    assert Sample().setShare(0.25).setNames("z").getNames() == ["z"]
    assert pickle.loads(pickle.dumps(Sample(count=None))).getCount() is None
