# SPDX-License-Identifier: GPL-3.0-or-later
"""Editing of the OVF that the Manager writes of a VM, so that it makes a copy without disks and interfaces.

The Manager attaches every disk that an OVF names, by id, if it exists. A copy must get its own disks only, and an OVF
comes from a backup target, where somebody may have written the id of a disk of another VM into it. Elements are
therefore told by their names without prefixes, and wherever in the document they stand.
"""

from __future__ import annotations

from collections.abc import Collection
from xml.etree.ElementTree import Element

from overkeep.engine.errors import EngineError
from overkeep.model import markup

_DISK, _NIC = "17", "10"  # values of rasd:ResourceType in the CIM schema
_ITEMS = {"Item", "StorageItem", "EthernetPortItem"}
_TYPES = {"disk", "interface"}  # values of Type, which the Manager writes beside it


class BadOvf(EngineError):
    """The kept configuration cannot be used."""

    code = "bad-ovf"
    template = (
        "The configuration (OVF) kept with the restore point cannot be used: {reason}; "
        "restore another point, or attach the disks to a new VM by hand."
    )
    status = 422


def of_new_vm(ovf: str, *, description: str, storage_domain_ids: Collection[str]) -> str:
    """Return `ovf` with another description and without disks, interfaces and snapshots.

    A lease on a storage domain that is not among `storage_domain_ids` goes too, as the Manager would refuse the VM.
    Raises `BadOvf`.
    """
    try:
        root = markup.parse(ovf)
    except markup.BadMarkup as error:
        raise BadOvf(reason=str(error)) from error
    if markup.local(root.tag) != "Envelope":
        raise BadOvf(reason=f"its root is {root.tag!r} instead of an OVF envelope")
    content = next((element for element in root if markup.local(element.tag) in ("Content", "VirtualSystem")), None)
    if content is None:
        raise BadOvf(reason="it describes no VM")
    _prune(root, storage_domain_ids)
    _describe(content, description)
    return markup.write(root)


def _describe(content: Element, description: str) -> None:
    found = next(markup.children(content, "Description"), None)
    if found is None:
        found = Element("Description")
        content.insert(0, found)
    found.text = description


def _prune(element: Element, domains: Collection[str]) -> None:
    for child in list(element):
        if _is_unwanted(child, domains):
            element.remove(child)
        else:
            _prune(child, domains)


def _is_unwanted(element: Element, domains: Collection[str]) -> bool:
    name = markup.local(element.tag)
    if name in ("File", "Disk"):  # of References and of the section of disks
        return True
    if name in _ITEMS:
        kind = markup.text(element, "ResourceType")
        return kind in (_DISK, _NIC) or markup.text(element, "Type") in _TYPES
    if name in ("Section", "SnapshotsSection"):
        return "SnapshotsSection" in (name, markup.local(markup.attribute(element, "type")).removesuffix("_Type"))
    if name == "LeaseDomainId":
        return (element.text or "").strip() not in domains
    return False
