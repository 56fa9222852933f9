# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the configuration of a point: that it is what was written, can be read, and is of the point's VM."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from overkeep.model import markup
from overkeep.model.points import RestorePoint
from overkeep.repository import documents, layout, seals
from overkeep.repository.errors import DocumentDamaged, RepositoryTooNew, UnsafePath
from overkeep.repository.repository import Repository, StoredConfiguration

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def configuration_faults(repository: Repository, point: RestorePoint) -> Iterator[str]:
    """What is wrong with the configuration of a point, as sentences; raises only the errors of the target."""
    try:
        folder = layout.located(repository.root, layout.point(point.workload_id, point.vm_id, point.id))
        kept = repository.configuration(point)
        _require_as_written(folder)
        _require_vm_of_document(folder, kept, point.vm_id)
        _require_vm_of_ovf(folder, kept, point.vm_id)
    except (DocumentDamaged, RepositoryTooNew, UnsafePath) as error:
        yield str(error)


def _require_as_written(folder: Path) -> None:
    manifest = documents.read(folder / layout.MANIFEST, "point") or {}
    for name in (layout.OVF, layout.CONFIGURATION):
        content = documents.read_bytes(folder / name) or b""
        if not seals.intact(manifest, name, content):
            raise DocumentDamaged(path=folder / name, reason="it is not what was written when the point was made")


def _require_vm_of_document(folder: Path, kept: StoredConfiguration, vm_id: str) -> None:
    """A configuration may leave out which VM it is of; then nothing can be said."""
    vm = kept.document.get("vm")
    found = vm.get("id") if isinstance(vm, dict) else None
    if isinstance(found, str) and found != vm_id:
        raise DocumentDamaged(path=folder / layout.CONFIGURATION, reason=f"it is of VM {found!r}")


def _require_vm_of_ovf(folder: Path, kept: StoredConfiguration, vm_id: str) -> None:
    try:
        found = _vm_of(markup.parse(kept.ovf))
    except markup.BadMarkup as error:
        raise DocumentDamaged(path=folder / layout.OVF, reason=str(error)) from error
    if found and found.lower() != vm_id.lower():
        raise DocumentDamaged(path=folder / layout.OVF, reason=f"it is of VM {found!r}")


def _vm_of(root: Element) -> str:
    """The id of the VM, as the section of the operating system has it; empty when it is not told."""
    for content in markup.children(root, "Content"):
        for section in markup.children(content, "Section"):
            kind = markup.local(markup.attribute(section, "type"))
            if kind == "OperatingSystemSection_Type" and _UUID.fullmatch(found := markup.attribute(section, "id")):
                return found
    return ""
