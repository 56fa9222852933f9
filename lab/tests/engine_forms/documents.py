# SPDX-License-Identifier: GPL-3.0-or-later
"""A document of the engine held against what the SDK knows, and turned into the JSON it should be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from xml.etree import ElementTree as ET

from lab.tests.engine_forms.sdk_model import Field, Model

# Links that the engine gives and the SDK's types do not name.
_MORE_LINKS = {"Host": {"fenceagents", "storage"}, "Vm": {"backups", "checkpoints"}}
_HEAD = ["actions", "name", "description", "comment", "link"]
_PLAIN = {
    "boolean": re.compile(r"true|false"),
    "integer": re.compile(r"-?\d+"),
    "decimal": re.compile(r"-?\d+(\.\d+)?"),
    "date": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}([+-]\d\d:\d\d|Z)"),
}


class Judge:
    """Reads XML documents strictly: `faults` gathers what is wrong with them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.followed: frozenset[str] = frozenset()  # names of links that the document has followed
        self.faults: set[str] = set()

    def document(self, root: ET.Element) -> Any:
        """Check a whole document, and give the JSON that says the same."""
        field = self.model.roots.get(root.tag)
        if field is None:
            self.faults.add(f"<{root.tag}> is no document that the SDK can read")
            return None
        return self._list(root, field.type) if field.kind == "many" else self._entity(root, field.type)

    def _list(self, element: ET.Element, kind: str) -> dict[str, Any]:
        tree: dict[str, list[Any]] = {}
        for member in element:
            if member.tag not in self.model.members(kind):
                self.faults.add(f"{kind} in a list is called <{member.tag}>")
            tree.setdefault(member.tag, []).append(self._entity(member, kind))
        if len(tree) > 1:
            self.faults.add(f"<{element.tag}> has members of several kinds: {sorted(tree)}")
        return tree

    def _entity(self, element: ET.Element, kind: str) -> dict[str, Any]:
        tree: dict[str, Any] = dict(element.attrib)
        self._order(element, kind)
        for child in element:
            if child.tag == "link":
                tree.setdefault("link", []).append(self._link(child, kind))
            elif child.tag == "actions":
                tree["actions"] = {"link": [dict(link.attrib) for link in child]}
            else:
                self._once(tree, child, kind)
        return tree

    def _link(self, link: ET.Element, kind: str) -> dict[str, str]:
        rel = link.get("rel", "")
        known = self.model.shapes[kind].links | _MORE_LINKS.get(kind, set())
        if kind != "Api" and rel not in known:
            self.faults.add(f"{kind} has no link {rel}")
        return dict(link.attrib)

    def _once(self, tree: dict[str, Any], child: ET.Element, kind: str) -> None:
        field = self.model.shapes[kind].fields.get(child.tag)
        if field is None:
            self.faults.add(f"{kind} has no <{child.tag}>")
        if child.tag in tree:
            self.faults.add(f"{kind} has <{child.tag}> twice")
        tree[child.tag] = self._value(child, field or Field("string"), f"{kind}.{child.tag}")

    def _value(self, element: ET.Element, field: Field, where: str) -> Any:
        if field.kind == "one":
            return self._entity(element, field.type)
        if field.kind == "many":
            return self._list(element, field.type)
        if field.kind in ("enums", "strings"):
            tags = {child.tag for child in element}
            return {tag: [self._word(child.text or "", field, where) for child in element] for tag in tags}
        if len(element):
            self.faults.add(f"{where} has elements in it, and should be plain")
        return self._word(element.text or "", field, where)

    def _word(self, text: str, field: Field, where: str) -> Any:
        if field.kind.startswith("enum") and text not in field.values:
            self.faults.add(f"{where} is '{text}', which is none of {sorted(field.values)}")
        pattern = _PLAIN.get(field.kind)
        if pattern is None:
            return text
        if not pattern.fullmatch(text):
            self.faults.add(f"{where} is '{text}', which is no {field.kind}")
            return text
        if field.kind == "date":
            return round(datetime.fromisoformat(text).timestamp() * 1000)
        return float(text) if field.kind == "decimal" else text

    def _order(self, element: ET.Element, kind: str) -> None:
        """Name and links first, then the fields by name, then what is linked by name."""
        tags = [child.tag for child in element]
        places = [_HEAD.index(tag) if tag in _HEAD else len(_HEAD) for tag in tags]
        rest = [child for child in element if child.tag not in _HEAD]
        links = [child.tag for child in rest if self._leads_elsewhere(child, kind)]
        fields = [child.tag for child in rest if not self._leads_elsewhere(child, kind)]
        if places != sorted(places) or [child.tag for child in rest] != sorted(fields) + sorted(links):
            self.faults.add(f"{kind} has its elements in the order {tags}")

    def _leads_elsewhere(self, element: ET.Element, kind: str) -> bool:
        """Whether an element is a link to another object, or a list of such; what was followed is one still."""
        if element.tag in self.followed:
            return True
        field = self.model.shapes[kind].fields.get(element.tag)
        members = [element] if field is None or field.kind == "one" else list(element)
        return bool(members) and all(map(_is_reference, members))


def _is_reference(element: ET.Element) -> bool:
    """Whether an element has no more than an id, an address and a name."""
    return {"id", "href"} <= element.attrib.keys() and all(child.tag == "name" for child in element)


def actions(element: ET.Element) -> Iterator[str]:
    """The addresses of all actions in a document."""
    for found in element.iter("actions"):
        yield from (link.get("href", "") for link in found)


def addresses(element: ET.Element) -> Iterator[str]:
    """All addresses in a document but those of actions."""
    for child in element:
        if child.tag == "actions":
            continue
        href = child.get("href")
        if href:
            yield href
        yield from addresses(child)
