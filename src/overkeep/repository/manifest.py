# SPDX-License-Identifier: GPL-3.0-or-later
"""Values to documents and back: restore points and workloads, with the fields that are not ours kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from overkeep.model.consistency import Reached, Wanted
from overkeep.model.points import BackupKind, RestorePoint
from overkeep.repository.documents import Document, envelope
from overkeep.repository.errors import DocumentDamaged

_POINT = TypeAdapter(RestorePoint)
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Member:
    """A VM of a workload."""

    id: str
    name: str


@dataclass(frozen=True, kw_only=True)
class WorkloadRecord:
    """A workload as the repository keeps it; `policy` is the controller's business."""

    id: str
    name: str
    members: tuple[Member, ...]
    policy: Mapping[str, Any]


def point_document(point: RestorePoint, previous: Mapping[str, Any] = _NOTHING) -> Document:
    """Write `point` as a document; fields of `previous` that are not ours are kept, also those of its images."""
    document: Document = {**previous, **envelope("point"), **_POINT.dump_python(point, mode="json")}
    strange = {image["disk_id"]: image for image in previous.get("images", ())}
    document["images"] = [{**strange.get(image["disk_id"], {}), **image} for image in document["images"]]
    return document


def point_value(document: Mapping[str, Any], path: Path) -> RestorePoint:
    """Read a point from a document that was checked; `path` is its manifest's, whose folders must name the point."""
    try:
        point = _POINT.validate_python({**document, **_words(document)})
    except ValidationError as error:
        raise DocumentDamaged(path=path, reason=str(error).replace("\n", " ")) from error
    if point.created.tzinfo is None:
        raise DocumentDamaged(path=path, reason="its time has no zone")
    named = (path.parents[4].name, path.parents[2].name, path.parent.name)
    if (point.workload_id, point.vm_id, point.id) != named:
        raise DocumentDamaged(path=path, reason=f"it belongs to {point.workload_id}/{point.vm_id}/{point.id}")
    return point


def _words(document: Mapping[str, Any]) -> dict[str, str | None]:
    """What the document tells of the backup; a word that is not known here is of a later writer, and tells nothing."""
    known = {"consistency": Reached, "consistency_wanted": Wanted, "backup_kind": BackupKind}
    return {name: word if (word := document.get(name)) in set(map(str, kind)) else None for name, kind in known.items()}


def workload_document(workload: WorkloadRecord, previous: Mapping[str, Any] = _NOTHING) -> Document:
    """Write `workload` as a document, keeping fields of `previous` that are not ours."""
    strange = {member["id"]: member for member in previous.get("members", ())}
    return {
        **previous,
        **envelope("workload"),
        "id": workload.id,
        "name": workload.name,
        "members": [{**strange.get(vm.id, {}), "id": vm.id, "name": vm.name} for vm in workload.members],
        "policy": dict(workload.policy),
    }


def workload_value(document: Mapping[str, Any], path: Path) -> WorkloadRecord:
    """Read a workload from a document that was checked; `path` is its file's."""
    if document["id"] != path.parent.name:
        raise DocumentDamaged(path=path, reason=f"it belongs to workload {document['id']}")
    members = tuple(Member(id=member["id"], name=member["name"]) for member in document["members"])
    return WorkloadRecord(id=document["id"], name=document["name"], members=members, policy=document["policy"])
