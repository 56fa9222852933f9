# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading XML that may be hostile: no document types, hence no entities; bounded size and depth.

Names are kept as written (`rasd:Parent`), so that a document that is written out again says the same, also where
values of attributes use its prefixes.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder, tostring
from xml.parsers import expat

from overkeep.units import MIB

_SIZE_LIMIT = 16 * MIB
_DEPTH_LIMIT = 100


class BadMarkup(ValueError):
    """A document that is no XML, or XML of a kind that is not taken; the text says why."""


def parse(document: str | bytes) -> Element:
    """Return the root of a document in UTF-8; raise `BadMarkup`."""
    raw = document.encode() if isinstance(document, str) else document
    if len(raw) > _SIZE_LIMIT:
        raise BadMarkup(f"it is larger than {_SIZE_LIMIT // MIB} MiB")
    reader = _Reader()
    try:
        reader.expat.Parse(raw, True)
        return reader.builder.close()
    except expat.ExpatError as error:
        raise BadMarkup(f"it is not well-formed XML ({error})") from error


def write(root: Element) -> str:
    """Return a document as text, with an XML declaration."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode")


def local(name: str) -> str:
    """Return a name without its prefix."""
    return name.rpartition(":")[2]


def attribute(element: Element, name: str) -> str:
    """Return an attribute by its name without prefix, or an empty text."""
    return next((value for key, value in element.items() if local(key) == name), "")


def children(element: Element, name: str) -> Iterator[Element]:
    """Yield the children that have a name, whatever their prefix."""
    return (child for child in element if local(child.tag) == name)


def text(element: Element, *path: str) -> str:
    """Return the text of the first descendant along names without prefix, or an empty text."""
    for name in path:
        found = next(children(element, name), None)
        if found is None:
            return ""
        element = found
    return (element.text or "").strip()


class _Reader:
    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self._depth = 0
        self.expat = expat.ParserCreate("utf-8")
        self.expat.buffer_text = True
        self.expat.StartElementHandler = self._start
        self.expat.EndElementHandler = self._end
        self.expat.CharacterDataHandler = self.builder.data
        self.expat.StartDoctypeDeclHandler = self._refuse

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEPTH_LIMIT:
            raise BadMarkup(f"its elements lie more than {_DEPTH_LIMIT} deep in one another")
        self.builder.start(tag, attributes)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self.builder.end(tag)

    def _refuse(self, *_: object) -> None:
        raise BadMarkup("it declares a document type, which a configuration never does")
