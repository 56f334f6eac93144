"""A cache that lives as long as the process: Spark reuses its Python workers, so the next task finds models open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class ProcessCache(Generic[T]):
    """Values by key, made at first use under a lock; the least recently used go first when the total cost outgrows the
    limit."""

    def __init__(self, limit: float, cost: Callable[[T], float] = lambda value: 1) -> None:
        self.limit, self.cost = limit, cost
        self._lock = threading.RLock()
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of ``key``, making it if it is not there."""
        with self._lock:
            if key not in self._values:
                self.put(key, make())
            self._values.move_to_end(key)
            return self._values[key]

    def find(self, key: Hashable) -> T | None:
        """Return the value of ``key``, or None where there is none."""
        with self._lock:
            return self._values.get(key)

    def put(self, key: Hashable, value: T) -> None:
        """Set the value of ``key``."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > 1 and sum(map(self.cost, self._values.values())) > self.limit:
                self._values.popitem(last=False)
