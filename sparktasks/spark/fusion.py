"""Fusion: consecutive annotators become one vectorized UDF, and each kernel runs once per row.

The DataFrame that an annotator returns carries its chain: the frame the chain started from, and every step since. The
next annotator extends that chain and builds one UDF over the first frame again; the lazy frame between is dropped. The
UDF stands under ``inline(array(udf(...)))``: a generator, so that Spark neither runs it twice for a filter on an output
nor keeps filters on other columns from reaching the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql.types import StructField

from sparktasks.errors import ColumnError, did_you_mean, listed
from sparktasks.kernels.plan import Kernel, Plan, Ref, Step
from sparktasks.runtime.bundle import Bundle
from sparktasks.spark.delivery import deliver
from sparktasks.spark.inputs import Projection, Visible, Wanted, misfit
from sparktasks.spark.vectorized import fused_columns, quoted

_ATTRIBUTE = "_sparktasks_chain"
FUSE_SETTING = "spark.sparktasks.fuse"


@dataclass(frozen=True)
class Chain:
    """Kernels waiting to run over one frame: ``inputs`` are the frame's columns they read, ``visible`` what comes out,
    ``bundles`` the models they need."""

    base: DataFrame | None
    visible: tuple[Visible, ...]
    inputs: tuple[Visible, ...] = ()
    steps: tuple[Step, ...] = ()
    bundles: tuple[Bundle, ...] = ()
    case_sensitive: bool = False

    def same(self, left: str, right: str) -> bool:
        """Compare two column names by the session's case rule."""
        return left == right or (not self.case_sensitive and left.lower() == right.lower())

    def find(self, name: str, who: str, wanted: Wanted | None = None) -> Visible:
        """Return the one visible column of that name, which ``wanted`` accepts.

        `ColumnError` where there is none, or more than one, or where it does not fit.
        """
        columns = [column for column in self.visible if self.same(column.name, name)]
        if len(columns) > 1:
            raise ColumnError(
                f"{who}: the column {name!r} is ambiguous: the DataFrame has {len(columns)} columns of that name. "
                "Rename one first."
            )
        if not columns:
            names = [column.name for column in self.visible]
            raise ColumnError(
                f"{who}: there is no column {name!r}.{did_you_mean(name, names)} The DataFrame has: {listed(names)}"
            )
        if wanted is not None and not columns[0].fits(wanted):
            raise misfit(who, columns[0], wanted, self.visible)
        return columns[0]

    def add(
        self,
        kernel: Kernel,
        arguments: Sequence[Visible],
        output: StructField,
        who: str,
        projection: Projection | None = None,
    ) -> Chain:
        """Append a kernel; its arguments are bound now, so overwriting one of them later does not change what it reads.

        ``projection`` computes the same column in Catalyst, of the one argument.
        """
        chain: Chain = self
        refs = []
        for column in arguments:
            chain, ref = chain._bind(column)
            refs.append(ref)
        position = arguments[0].position if arguments else None
        written = Visible(
            output.name,
            output.dataType,
            output.metadata,
            step=len(chain.steps),
            projection=None if projection is None or position is None else (projection, position),
        )
        steps = (*chain.steps, Step(kernel, tuple(refs)))
        return replace(chain, steps=steps, visible=chain._placed(written, who))

    def needing(self, bundle: Bundle) -> Chain:
        """Let a bundle be delivered to the executors with this chain."""
        return replace(self, bundles=(*self.bundles, bundle))

    def _bind(self, column: Visible) -> tuple[Chain, Ref]:
        if column.step is not None:
            return self, Ref(True, column.step)
        if column in self.inputs:
            return self, Ref(False, self.inputs.index(column))
        return replace(self, inputs=(*self.inputs, column)), Ref(False, len(self.inputs))

    def _placed(self, made: Visible, who: str) -> tuple[Visible, ...]:
        if not any(self.same(column.name, made.name) for column in self.visible):
            return (*self.visible, made)
        overwritten = self.find(made.name, who)
        return tuple(made if column is overwritten else column for column in self.visible)

    def drop(self, columns: Sequence[Visible]) -> Chain:
        """Take columns away; what only they needed is not run, and does not leave the worker."""
        return replace(self, visible=tuple(column for column in self.visible if column not in columns))

    def plan(self) -> tuple[Plan, list[Visible]]:
        """Return what is run where every column comes from a kernel, and the columns that come back, in order."""
        return self._plan_of([column for column in self.visible if column.step is not None])

    def _plan_of(self, columns: list[Visible]) -> tuple[Plan, list[Visible]]:
        return Plan(self.steps, tuple(column.step for column in columns if column.step is not None)), columns

    def frame(self) -> DataFrame:
        """Build the DataFrame that runs this chain over its base, and let it carry the chain on."""
        assert self.base is not None
        names = self.base.columns
        kept = [column.position for column in self.visible if column.step is None]
        appends_only = kept == list(range(len(names)))
        base = self.base
        if not appends_only and not self._distinct(names):
            base = base.toDF(*[f"c{index}" for index in range(len(names))])
        # What Catalyst can compute need not come back from Python.
        plan, generated = self._plan_of(
            [column for column in self.visible if column.step is not None and column.projection is None]
        )
        needed = {ref.place for step in plan.needed for ref in self.steps[step].arguments if not ref.from_step}
        plan, inputs = _reading(plan, self.inputs, sorted(needed))
        raw, temporary, expressions = fused_columns(
            base,
            plan,
            [(base.columns[column.position or 0], column.known_type) for column in inputs],
            [column.known_type for column in generated],
            deliver(self.bundles, base.sparkSession) if generated else [],
        )
        columns = dict(zip([column.name for column in generated], expressions, strict=True))
        outputs = []
        for column in self.visible:
            if column.step is not None:
                if column.projection is not None:
                    project, position = column.projection
                    columns[column.name] = project(quoted(base.columns[position]))
                outputs.append(columns[column.name].alias(column.name, metadata=column.metadata))
        if appends_only:
            frame = raw.select("*", *outputs).drop(*temporary)
        else:
            frame = raw.select(*self._arranged(base.columns, outputs))
        frame.__dict__[_ATTRIBUTE] = self
        return frame

    def _distinct(self, names: Sequence[str]) -> bool:
        return len({name if self.case_sensitive else name.lower() for name in names}) == len(names)

    def _arranged(self, names: Sequence[str], outputs: Sequence[Column]) -> list[Column]:
        """Return every visible column in order, made ones in the places of those they overwrote."""
        made = iter(outputs)
        return [
            quoted(names[column.position or 0]).alias(column.name) if column.step is None else next(made)
            for column in self.visible
        ]


def chain_of(df: DataFrame) -> Chain:
    """Return the chain that a frame carries, or a new one that starts at this frame.

    A cached frame starts a new chain: extending the old one would run the cached kernels again. ``cache()``,
    ``persist()`` and ``df.transform(identity)`` return the same object, so the attribute alone does not tell.
    """
    settings = df.sparkSession.conf
    chain = df.__dict__.get(_ATTRIBUTE)
    if isinstance(chain, Chain) and _is_on(settings.get(FUSE_SETTING, "true")) and not _is_stored(df):
        return chain
    visible = tuple(
        Visible(field.name, field.dataType, field.metadata or {}, position=n)
        for n, field in enumerate(df.schema.fields)
    )
    return Chain(df, visible, case_sensitive=_is_on(settings.get("spark.sql.caseSensitive", "false")))


def _reading(plan: Plan, inputs: Sequence[Visible], needed: Sequence[int]) -> tuple[Plan, list[Visible]]:
    """Let a plan read only those inputs that it needs; returns it and them."""
    places = {place: number for number, place in enumerate(needed)}
    steps = []
    for step in plan.steps:
        refs = [ref if ref.from_step else Ref(False, places.get(ref.place, 0)) for ref in step.arguments]
        steps.append(Step(step.kernel, tuple(refs)))
    return Plan(tuple(steps), plan.outputs), [inputs[place] for place in needed]


def _is_on(setting: Any) -> bool:
    """Tell whether a setting is true, in whichever case it was written: Python's True is one that people set."""
    return str(setting).strip().lower() == "true"


def _is_stored(df: DataFrame) -> bool:
    level = df.storageLevel
    return level.useMemory or level.useDisk
