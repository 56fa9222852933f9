# SPDX-License-Identifier: GPL-3.0-or-later
"""A bounded memory of answers that are good for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Cache(Generic[_Key, _Value]):
    """Keeps at most `limit` values for `seconds` each, forgetting the oldest first. Errors are not kept."""

    def __init__(self, seconds: float, limit: int, *, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, tuple[float, _Value]] = OrderedDict()

    def get(self, key: _Key, read: Callable[[], _Value]) -> _Value:
        """Return the kept value of `key`, or what `read` gives now; two threads may read the same at once."""
        now = self._clock()
        with self._lock:
            found = self._kept.get(key)
        if found is not None and now < found[0]:
            return found[1]
        value = read()
        with self._lock:
            self._kept[key] = (now + self._seconds, value)
            self._kept.move_to_end(key)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self._kept)
