# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a mapping of a YAML file field by field, so that each error names its place and what to write there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]iB|B)")
_REQUIRED: Any = object()


class BadEnvironment(ValueError):
    """An environment cannot be used; the text says where and why."""


class Fields:
    """The fields of one mapping. `done` complains about those that nobody read."""

    def __init__(self, value: object, *, place: str) -> None:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise BadEnvironment(f"{place} must be a mapping of names to values, not {_shown(value)}.")
        self._values: Mapping[str, Any] = value
        self._place = place
        self._read: set[str] = set()

    def error(self, key: str, what: str) -> BadEnvironment:
        """Return the error that says `what` about the field `key`."""
        return BadEnvironment(f"{self._place}: `{key}` {what}.")

    def copy(self, **changes: object) -> Fields:
        """Return the same fields with some replaced, nothing of them read yet but what generates copies."""
        copied = Fields({**self._values, **changes}, place=self._place)
        copied._read.add("count")
        return copied

    def done(self) -> None:
        """Raise when a field was never read: it is misspelt or unknown."""
        unknown = sorted(set(self._values) - self._read)
        if unknown:
            known = ", ".join(sorted(self._read))
            raise self.error(unknown[0], f"is not known here; known are: {known}")

    def _take(self, key: str, default: Any) -> Any:
        self._read.add(key)
        value = self._values.get(key, default)
        if value is _REQUIRED:
            raise self.error(key, "is missing")
        return value

    def text(self, key: str, *, default: str = _REQUIRED, pattern: re.Pattern[str] | None = None) -> str:
        """Return a text; it matches `pattern` when there is one."""
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"must be a text, not {_shown(value)}; put it in quotes")
        if pattern and not pattern.fullmatch(value):
            raise self.error(key, f"is {value!r}, which does not match {pattern.pattern}")
        return value

    def choice(self, key: str, options: Sequence[str], *, default: str) -> str:
        """Return one of `options`. The word `none` may be written as YAML's null."""
        value = self._take(key, default)
        value = "none" if value is None and "none" in options else value
        if value not in options:
            raise self.error(key, f"is {_shown(value)}; choose one of: {', '.join(options)}")
        return str(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {_shown(value)}")
        return value

    def whole(self, key: str, *, default: int) -> int:
        """Return a whole number, zero or more."""
        value = self._take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(key, f"must be a whole number, zero or more, not {_shown(value)}")
        return value

    def number(self, key: str, *, default: float, least: float) -> float:
        """Return a number not below `least`."""
        value = self._take(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or value < least:
            raise self.error(key, f"must be a number not below {least:g}, not {_shown(value)}")
        return float(value)

    def size(self, key: str, *, default: int = _REQUIRED, least: int) -> int:
        """Return a size in bytes, written as `1 GiB`."""
        value = self._take(key, default)
        found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        count = int(float(found[1]) * _UNITS[found[2]]) if found else value
        if not isinstance(count, int) or isinstance(count, bool) or count < least:
            raise self.error(key, f"must be a size like `1 GiB` (at least {least} bytes), not {_shown(value)}")
        return count

    def numbers(self, key: str) -> Mapping[str, float | bool]:
        """Return a mapping of names to numbers or flags, empty when there is none."""
        value = self._take(key, {})
        if not isinstance(value, Mapping) or not all(isinstance(item, int | float) for item in value.values()):
            raise self.error(key, f"must map names to numbers or true and false, not {_shown(value)}")
        return {str(name): item for name, item in value.items()}

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, empty when there is none."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"must be a list of texts, not {_shown(value)}")
        return tuple(value)

    def items(self, key: str, *, default: Sequence[Any] | None = None) -> list[Fields]:
        """Return the mappings of a list."""
        value = self._take(key, _REQUIRED if default is None else list(default))
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, not {_shown(value)}")
        return [Fields(item, place=f"{self._place}: {key}[{number}]") for number, item in enumerate(value, start=1)]


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)
