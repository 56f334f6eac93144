"""Fusion: consecutive annotators become one vectorized UDF, and each kernel runs once per row.

The DataFrame that an annotator returns carries its chain: the frame the chain started from, and every step since. The
next annotator extends that chain and builds one UDF over the first frame again; the lazy frame between is dropped. The
UDF stands under ``inline(array(udf(...)))``: a generator, so that Spark neither runs it twice for a filter on an output
nor keeps filters on other columns from reaching the scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql.types import StructField

from sparktasks.errors import ColumnError, did_you_mean, listed
from sparktasks.kernels.plan import Kernel, Plan, Ref, Step
from sparktasks.runtime.folders import Folder
from sparktasks.spark.delivery import deliver
from sparktasks.spark.inputs import Projection, Visible, Wanted, misfit
from sparktasks.spark.vectorized import fused_columns, quoted

_ATTRIBUTE = "_sparktasks_chain"
FUSE_SETTING = "spark.sparktasks.fuse"


@dataclass(frozen=True)
class Chain:
    """Kernels waiting to run over one frame: ``inputs`` are the frame's columns they read, ``visible`` what comes out,
    ``folders`` the files they need."""

    base: DataFrame | None
    visible: tuple[Visible, ...]
    inputs: tuple[Visible, ...] = ()
    steps: tuple[Step, ...] = ()
    folders: tuple[Folder, ...] = ()
    case_sensitive: bool = False

    def same(self, left: str, right: str) -> bool:
        """Compare two column names by the session's case rule."""
        if self.case_sensitive:
            return left == right
        return left.lower() == right.lower()

    def find(self, name: str, who: str, wanted: Wanted | None = None) -> Visible:
        """Return the one visible column of that name, which ``wanted`` accepts.

        `ColumnError` where there is none, or more than one, or where it does not fit.
        """
        columns = [column for column in self.visible if self.same(column.name, name)]
        # A frame may have two columns of one name, after a join for instance; only a reference to it is an error.
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
        written = Visible(output.name, output.dataType, output.metadata, step=len(chain.steps))
        # Catalyst computes a column from the frame's own ones only: not from what a kernel of this chain makes.
        if projection is not None and arguments[0].position is not None:
            written = replace(written, projection=(projection, arguments[0].position))
        steps = (*chain.steps, Step(kernel, tuple(refs)))
        return replace(chain, steps=steps, visible=chain._placed(written, who))

    def needing(self, folder: Folder) -> Chain:
        """Let a folder be delivered to the executors with this chain."""
        return replace(self, folders=(*self.folders, folder))

    def _bind(self, column: Visible) -> tuple[Chain, Ref]:
        if column.step is not None:
            return self, Ref(True, column.step)
        if column in self.inputs:
            return self, Ref(False, self.inputs.index(column))
        return replace(self, inputs=(*self.inputs, column)), Ref(False, len(self.inputs))

    def _placed(self, written: Visible, who: str) -> tuple[Visible, ...]:
        """Return the visible columns with a written one: in the place of the one it overwrites, else at the end."""
        if not any(self.same(column.name, written.name) for column in self.visible):
            return (*self.visible, written)
        columns = list(self.visible)
        columns[columns.index(self.find(written.name, who))] = written
        return tuple(columns)

    def drop(self, columns: Sequence[Visible]) -> Chain:
        """Take columns away; what only they needed is not run, and does not leave the worker."""
        return replace(self, visible=tuple(column for column in self.visible if column not in columns))

    def plan(self) -> tuple[Plan, list[Visible]]:
        """Return what is run where every column comes from a kernel, and the columns that come back, in order."""
        columns = [column for column in self.visible if column.step is not None]
        return self._plan_of(columns), columns

    def _plan_of(self, columns: Sequence[Visible]) -> Plan:
        return Plan(self.steps, tuple(column.step for column in columns if column.step is not None))

    def frame(self) -> DataFrame:
        """Build the DataFrame that runs this chain over its base, and let it carry the chain on."""
        base = self._nameable_base()
        # What Catalyst can compute need not come back from Python.
        from_python = [column for column in self.visible if column.step is not None and column.projection is None]
        plan, inputs = _reading(self._plan_of(from_python), self.inputs)
        raw, temporary, expressions = fused_columns(
            base,
            plan,
            [(base.columns[column.known_position], column.known_type) for column in inputs],
            [column.known_type for column in from_python],
            deliver(self.folders, base.sparkSession) if from_python else [],
        )
        computed = zip([column.name for column in from_python], expressions, strict=True)
        outputs = self._outputs(base.columns, dict(computed))
        if self._appends_only():
            frame = raw.select("*", *outputs.values()).drop(*temporary)
        else:
            frame = raw.select(*self._arranged(base.columns, outputs))
        frame.__dict__[_ATTRIBUTE] = self
        return frame

    def _known_base(self) -> DataFrame:
        assert self.base is not None
        return self.base

    def _appends_only(self) -> bool:
        """Tell whether all columns of the base stay as they are, so that none of them need be named."""
        kept = [column.position for column in self.visible if column.step is None]
        return kept == list(range(len(self._known_base().columns)))

    def _nameable_base(self) -> DataFrame:
        """Return the base; with names of our own where columns must be named that share a name."""
        base = self._known_base()
        names = base.columns if self.case_sensitive else [name.lower() for name in base.columns]
        if self._appends_only() or len(set(names)) == len(names):
            return base
        return base.toDF(*[f"c{index}" for index in range(len(names))])

    def _outputs(self, base_names: Sequence[str], computed: Mapping[str, Column]) -> dict[str, Column]:
        """Return the expressions of the columns that steps make, by name: from Python, or else Catalyst's own."""
        outputs = {}
        for column in self.visible:
            if column.step is None:
                continue
            if column.projection is None:
                expression = computed[column.name]
            else:
                project, position = column.projection
                expression = project(quoted(base_names[position]))
            outputs[column.name] = expression.alias(column.name, metadata=column.metadata)
        return outputs

    def _arranged(self, base_names: Sequence[str], outputs: Mapping[str, Column]) -> list[Column]:
        """Return every visible column in order, written ones in the places of those they overwrote."""
        columns = []
        for column in self.visible:
            if column.step is None:
                columns.append(quoted(base_names[column.known_position]).alias(column.name))
            else:
                columns.append(outputs[column.name])
        return columns


def chain_of(df: DataFrame) -> Chain:
    """Return the chain that a frame carries, or a new one that starts at this frame.

    A cached frame starts a new chain: extending the old one would run the cached kernels again. ``cache()``,
    ``persist()`` and ``df.transform(identity)`` return the same object, so the attribute alone does not tell.
    """
    settings = df.sparkSession.conf
    chain = df.__dict__.get(_ATTRIBUTE)
    if isinstance(chain, Chain) and _is_on(settings.get(FUSE_SETTING, "true")) and not _is_stored(df):
        return chain
    visible = []
    for position, field in enumerate(df.schema.fields):
        visible.append(Visible(field.name, field.dataType, field.metadata or {}, position=position))
    return Chain(df, tuple(visible), case_sensitive=_is_on(settings.get("spark.sql.caseSensitive", "false")))


def _reading(plan: Plan, inputs: Sequence[Visible]) -> tuple[Plan, list[Visible]]:
    """Let a plan read only those inputs that it needs; returns it and them."""
    needed: set[int] = set()
    for index in plan.needed:
        needed.update(ref.place for ref in plan.steps[index].arguments if not ref.from_step)
    places = sorted(needed)
    new_places = {place: number for number, place in enumerate(places)}
    steps = []
    for step in plan.steps:
        # Steps that do not run stay, so that the others keep their numbers; what they point at does not matter.
        refs = [ref if ref.from_step else Ref(False, new_places.get(ref.place, 0)) for ref in step.arguments]
        steps.append(Step(step.kernel, tuple(refs)))
    return Plan(tuple(steps), plan.outputs), [inputs[place] for place in places]


def _is_on(setting: Any) -> bool:
    """Tell whether a setting is true, in whichever case it was written: Python's True is one that people set."""
    return str(setting).strip().lower() == "true"


def _is_stored(df: DataFrame) -> bool:
    level = df.storageLevel
    return level.useMemory or level.useDisk
