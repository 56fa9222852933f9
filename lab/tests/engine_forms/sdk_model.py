# SPDX-License-Identifier: GPL-3.0-or-later
"""What the SDK's readers know: for each type its elements with their kinds, and its links. Read from their source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ovirtsdk4 import readers, types

_CLASS = re.compile(r"^class (\w+)Reader\(Reader\):$", re.MULTILINE)
_ELEMENT = re.compile(r"tag == '(\w+)':\n\s+obj\.\w+ = (\w+)\.(read_\w+)\((?:types\.(\w+), )?reader\)")
_REL = re.compile(r'rel == "(\w+)"')
_ROOT = re.compile(r"Reader\.register\('(\w+)', (\w+)Reader\.(read_one|read_many)\)")


@dataclass(frozen=True)
class Field:
    """An element: `kind` is string, boolean, integer, decimal, date, enum, enums, strings, one or many."""

    kind: str
    type: str = ""

    @property
    def values(self) -> frozenset[str]:
        """The words of an enumeration."""
        return frozenset(str(member.value) for member in getattr(types, self.type))


@dataclass(frozen=True)
class Shape:
    """A type: its elements by tag, and the names of its links."""

    fields: Mapping[str, Field]
    links: frozenset[str]


@dataclass(frozen=True)
class Model:
    """`roots` are the tags a document may begin with, each with its type; `members` those of one object."""

    shapes: Mapping[str, Shape]
    roots: Mapping[str, Field]

    def members(self, kind: str) -> frozenset[str]:
        """The tags that an object of this type has on its own or in a list."""
        return frozenset(tag for tag, field in self.roots.items() if field == Field("one", kind))


def _field(reader: str, method: str, enum: str) -> Field:
    if reader != "Reader":
        return Field(method.removeprefix("read_"), reader.removesuffix("Reader"))
    return Field(method.removeprefix("read_"), enum)


def load() -> Model:
    """Read the SDK's source."""
    source = inspect.getsource(readers)
    shapes: dict[str, Shape] = {}
    parts: list[Any] = _CLASS.split(source)[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        fields = {tag: _field(reader, method, enum) for tag, reader, method, enum in _ELEMENT.findall(text)}
        shapes[name] = Shape(fields, frozenset(_REL.findall(text)))
    roots = {tag: _field(f"{name}Reader", method, "") for tag, name, method in _ROOT.findall(source)}
    return Model(shapes, roots)
