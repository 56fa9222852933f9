# SPDX-License-Identifier: GPL-3.0-or-later
"""Request bodies: XML or JSON read into one kind of tree, whose readers refuse malformed values as the engine does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxml import etree  # type: ignore[import-untyped]

from ovirtlab.engine.faults import BadRequest, malformed

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TRUE = {"true", "t", "yes", "y", "1", ""}
_FALSE = {"false", "f", "no", "n", "0"}


@dataclass
class Body:
    """An element of the request: its own text and its children by name. Names may be missing: then readers give None.

    The same tree comes from `<disk id="x"><format>raw</format></disk>` and from `{"id": "x", "format": "raw"}`.
    """

    value: str = ""
    fields: dict[str, list[Body]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    @property
    def id(self) -> str | None:
        """The `id`, checked to be a UUID."""
        text = self.text("id")
        return None if text is None else read_guid(text)

    def child(self, name: str) -> Body | None:
        """The first element of this name."""
        found = self.fields.get(name)
        return found[0] if found else None

    def list(self, name: str, member: str) -> list[Body]:
        """The members of a nested list, e.g. `list("disks", "disk")`; empty when there is none."""
        outer = self.child(name)
        return list(outer.fields.get(member, ())) if outer else []

    def text(self, *path: str) -> str | None:
        """The text below a path of names, e.g. `text("cluster", "name")`."""
        node: Body | None = self
        for name in path:
            node = node.child(name) if node else None
        return None if node is None else node.value

    def integer(self, *path: str) -> int | None:
        text = self.text(*path)
        return None if text is None else read_integer(text)

    def number(self, *path: str) -> float | None:
        text = self.text(*path)
        return None if text is None else read_number(text)

    def flag(self, *path: str) -> bool | None:
        text = self.text(*path)
        return None if text is None else read_boolean(text)

    def ref(self, name: str) -> str | None:
        """The id of a linked object, e.g. `ref("host")`."""
        child = self.child(name)
        return child.id if child else None


class Unreadable(Exception):
    """A body that is neither XML nor JSON."""


def read_guid(text: str) -> str:
    """A UUID in the canonical form, or a 400 fault."""
    if not _GUID.fullmatch(text):
        raise BadRequest(f"Invalid UUID string: {text}", reason="Operation failed")
    return text.lower()


def read_integer(text: str) -> int:
    """A whole number, or a 400 fault."""
    try:
        return int(text)
    except ValueError:
        raise malformed(f"The value '{text}' is not a valid number.") from None


def read_number(text: str) -> float:
    """A number, or a 400 fault."""
    try:
        return float(text)
    except ValueError:
        raise malformed(f"The value '{text}' is not a valid number.") from None


def read_boolean(text: str) -> bool:
    """A boolean with the words the engine takes; empty is true."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise malformed(f"The value '{text}' is not a valid boolean.")


def boolean_parameter(parameters: Mapping[str, str], name: str) -> bool | None:
    """A parameter that is a boolean; one that is none is ignored, as the engine does."""
    try:
        return read_boolean(parameters[name])
    except (KeyError, BadRequest):
        return None


def parse_body(raw: bytes, content_type: str) -> Body:
    """Read a request body; empty gives an empty `Body`, what is neither XML nor JSON raises `Unreadable`."""
    if not raw.strip():
        return Body()
    if "json" in content_type:
        return _parse_json(raw)
    return _parse_xml(raw)


def _parse_xml(raw: bytes) -> Body:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, remove_comments=True)
    try:
        root = etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        raise Unreadable(str(error)) from None
    return _from_xml(root)


def _from_xml(element: Any) -> Body:
    body = Body(value=element.text or "")
    for name, value in element.attrib.items():
        body.fields[name] = [Body(value=value)]
    for child in element:
        if isinstance(child.tag, str):
            body.fields.setdefault(child.tag, []).append(_from_xml(child))
    return body


def _parse_json(raw: bytes) -> Body:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    if not isinstance(document, dict):
        raise Unreadable("The JSON is no object.")
    return _from_json(document)


def _from_json(value: Any) -> Body:
    if not isinstance(value, dict):
        return Body(value=_scalar(value))
    body = Body()
    for name, member in value.items():
        if member is not None:
            body.fields[name] = list(_members(member))
    return body


def _members(value: Any) -> Iterator[Body]:
    for member in value if isinstance(value, list) else [value]:
        yield _from_json(member)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
