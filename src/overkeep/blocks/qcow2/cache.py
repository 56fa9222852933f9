# SPDX-License-Identifier: GPL-3.0-or-later
"""A cache that holds what was used last, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values by key, for several threads; `size_of` tells how many of the `most` bytes a value takes.

    One that is larger is not kept.
    """

    def __init__(self, most: int, size_of: Callable[[Value], int]) -> None:
        self._most = most
        self._size_of = size_of
        self._bytes = 0
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of `key`; it is made if it is not there.

        Two threads may make the same value at once; both get one that is right.
        """
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
                return found[0]
        value = make()
        self._keep(key, value, self._size_of(value))
        return value

    def _keep(self, key: Hashable, value: Value, size: int) -> None:
        with self._lock:
            if size > self._most or key in self._values:
                return
            self._values[key] = (value, size)
            self._bytes += size
            while self._bytes > self._most:
                _, (_, freed) = self._values.popitem(last=False)
                self._bytes -= freed
