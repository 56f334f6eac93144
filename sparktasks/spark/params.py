"""Spark ML params in one line each: ``topK: P[int | None] = param("...", default=1, check=at_least(1))``.

The annotation gives the type, the line gives the doc, the default and the check; ``setTopK``, ``getTopK``, the
constructor's signature and the conversion of values are derived. Each stays a real `pyspark.ml.param.Param`.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union, get_args, get_origin

from pyspark.ml.param import Param, Params

from sparktasks.errors import ParamError, did_you_mean, listed

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        return lambda cls: cls


T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """A picklable test of one value: bounds (inclusive but where ``strict``; None is open) or a closed list of
    options."""

    low: float | None = None
    high: float | None = None
    options: tuple[Any, ...] = ()
    strict: bool = False

    def __call__(self, value: Any) -> bool:
        if self.options:
            return value in self.options
        # "not >=" also keeps NaN out, which is neither below nor above.
        if self.low is not None and not value >= self.low:
            return False
        if self.strict and value == self.low:
            return False
        return self.high is None or bool(value <= self.high)

    def __str__(self) -> str:
        if self.options:
            return "one of " + listed(self.options)
        if self.high is not None:
            return f"between {self.low} and {self.high}"
        return f"more than {self.low}" if self.strict else f"at least {self.low}"


def at_least(low: float) -> Check:
    """Allow numbers from ``low`` on."""
    return Check(low=low)


def above(low: float) -> Check:
    """Allow numbers greater than ``low``."""
    return Check(low=low, strict=True)


def between(low: float, high: float) -> Check:
    """Allow numbers from ``low`` to ``high``, both included."""
    return Check(low=low, high=high)


def one_of(*options: Any) -> Check:
    """Allow the listed values only."""
    return Check(options=options)


@dataclass(frozen=True)
class Converter:
    """Turns a user's value into the declared type, or raises `ParamError` saying what is allowed."""

    name: str
    doc: str
    kind: Any
    check: Check | None

    def __call__(self, value: Any) -> Any:
        kinds = _alternatives(self.kind)
        if value is None and type(None) in kinds:
            return None
        for kind in kinds:
            converted = _convert(value, kind)
            if converted is not None and self._passes(converted):
                return converted
        raise ParamError(f"{self.name}={value!r} is not allowed: {self.name} takes {self.allowed()} ({self.doc})")

    def _passes(self, value: Any) -> bool:
        """Tell whether a value, or each item of a list, stands the check."""
        if self.check is None:
            return True
        items = value if isinstance(value, list) else [value]
        return all(map(self.check, items))

    def allowed(self) -> str:
        """Say in words which values pass."""
        kinds = " or ".join(map(_name, _alternatives(self.kind)))
        return f"{kinds}, {self.check}" if self.check else kinds


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, such as ``int | None``; any other type alone."""
    if get_origin(kind) in (Union, types.UnionType):
        return get_args(kind)
    return (kind,)


def _name(kind: Any) -> str:
    if kind is type(None):
        return "None"
    return str(kind) if get_origin(kind) else kind.__name__


def _convert(value: Any, kind: Any) -> Any:
    """Return the value as ``kind``, or None where it is not one."""
    origin = get_origin(kind)
    if origin is list:
        return _convert_list(value, get_args(kind)[0])
    if origin is dict:
        return dict(value) if isinstance(value, Mapping) else None
    if hasattr(value, "item") and not hasattr(value, "__len__"):  # numpy scalars
        value = value.item()
    # Python's booleans are integers, but True for a number is a slip.
    if isinstance(value, bool):
        return value if kind is bool else None
    return _convert_number(value, kind)


def _convert_number(value: Any, kind: Any) -> Any:
    """Return numbers as floats, or whole floats as integers, where ``kind`` says so."""
    if kind is float and isinstance(value, (int, float)):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, kind) else None


def _convert_list(value: Any, kind: Any) -> list[Any] | None:
    # The order of a set or the keys of a mapping says nothing.
    if isinstance(value, (set, frozenset, Mapping)) or not hasattr(value, "__iter__"):
        return None
    # A string alone is one item, not its letters.
    items = [value] if isinstance(value, str) else value
    converted = [_convert(item, kind) for item in items]
    return None if None in converted else converted


if TYPE_CHECKING:

    class P(Generic[T]):
        """What an editor sees: reading gives a Param, the constructor takes the value."""

        def __get__(self, obj: Any, owner: Any = None) -> Param[T]: ...
        def __set__(self, obj: Any, value: T) -> None: ...

    def param(doc: str, *, default: Any, check: Check | None = None) -> Any: ...

else:

    class P(Param[T]):
        """A declared param: a `Param` that also knows its default and its converter."""

        def __init__(self, doc: str, default: Any, check: Check | None) -> None:
            super().__init__(Params._dummy(), "undefined", doc)
            self.default, self.check = default, check

        def bind(self, name: str, kind: Any) -> None:
            self.name = name
            self.typeConverter = Converter(name, self.doc, kind, self.check)

    def param(doc: str, *, default: Any, check: Check | None = None) -> P:
        """Declare a param: what it is, its default (None is allowed where the type says so), its check."""
        return P(doc, default, check)


def declared(cls: type) -> dict[str, Any]:
    """Return the params declared on a class and its parents, by name, parents first."""
    params = {}
    for base in reversed(cls.__mro__):
        params.update(_own_params(base))
    return params


def _own_params(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if isinstance(value, P)}


def _accessors(name: str, doc: str) -> dict[str, Callable[..., Any]]:
    def setter(self: Any, *value: Any) -> Any:
        return self._set(**{name: value[0] if len(value) == 1 else list(value)})

    def getter(self: Any) -> Any:
        return self.getOrDefault(name)

    capital = name[0].upper() + name[1:]
    setter.__name__, getter.__name__ = f"set{capital}", f"get{capital}"
    setter.__doc__, getter.__doc__ = f"Set {name}: {doc}.", f"Get {name}: {doc}."
    return {setter.__name__: setter, getter.__name__: getter}


def _signature(params: Mapping[str, Any]) -> inspect.Signature:
    """Return what editors and ``help`` show of the constructor."""
    parameters = []
    for name, own in params.items():
        kind = own.typeConverter.kind
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=own.default, annotation=kind))
    return inspect.Signature(parameters)


@dataclass_transform(kw_only_default=True, field_specifiers=(param,))
class Declared(Params):
    """Params whose constructor, setters, getters and defaults come from ``name: P[T] = param(...)`` lines."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Annotations are strings here ("P[int]"); the first argument of P is the param's type.
        hints = inspect.get_annotations(cls, eval_str=True)
        for name, own in _own_params(cls).items():
            own.bind(name, get_args(hints[name])[0])
            for accessor, function in _accessors(name, own.doc).items():
                if accessor not in vars(cls):
                    setattr(cls, accessor, function)
        cls.__signature__ = _signature(declared(cls))  # type: ignore[attr-defined]

    if not TYPE_CHECKING:

        def __init__(self, **kwargs):
            super().__init__()
            self._setDefault(**{name: p.default for name, p in declared(type(self)).items()})
            self.setParams(**kwargs)

    def setParams(self, **kwargs: Any) -> Self:
        """Set several params at once."""
        return self._set(**kwargs)

    def _set(self, **kwargs: Any) -> Self:
        known = declared(type(self))
        for name, value in kwargs.items():
            if name not in known:
                raise ParamError(
                    f"{self.uid}: there is no param {name!r}.{did_you_mean(name, known)} Allowed: {listed(known)}"
                )
            # The class's param belongs to no stage; the instance's copy of it carries the uid.
            own = getattr(self, name)
            try:
                self._paramMap[own] = own.typeConverter(value)
            except ParamError as error:
                raise ParamError(f"{self.uid}: {error}") from None
        return self
