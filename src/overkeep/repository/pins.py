# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins: restore points that must stay (docs/format/1.md, "pin.json")."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from overkeep.blocks.errors import on_target
from overkeep.blocks.files import sync_folder
from overkeep.model.points import Pin
from overkeep.repository import documents, layout
from overkeep.repository.errors import DocumentDamaged, PointPinned, RepositoryTooNew

_UNREADABLE = dt.datetime.fromtimestamp(0, dt.UTC)


def read_pin(folder: Path) -> Pin | None:
    """Read the pin in the folder of a point; None when it has none. One that cannot be read is a pin as well."""
    try:
        document = documents.read(folder / layout.PIN, "pin")
    except (DocumentDamaged, RepositoryTooNew) as error:
        return Pin(reason=f"its pin cannot be read: {error}", by="", pinned_at=_UNREADABLE)
    if document is None:
        return None
    return Pin(reason=document["reason"], by=document["by"], pinned_at=dt.datetime.fromisoformat(document["pinned_at"]))


def write_pin(folder: Path, pin: Pin) -> None:
    """Pin a point, durably, in place of an earlier pin."""
    content = {"pinned_at": pin.pinned_at.isoformat(), "by": pin.by, "reason": pin.reason}
    documents.write(folder / layout.PIN, {**documents.envelope("pin"), **content})


def remove_pin(folder: Path) -> None:
    """Let a point go, durably; one that is not pinned is no error."""
    with on_target(folder):
        (folder / layout.PIN).unlink(missing_ok=True)
    sync_folder(folder)


def require_unpinned(folder: Path, point_id: str) -> None:
    """Raise `PointPinned` while a point must stay."""
    pin = read_pin(folder)
    if pin is not None:
        raise PointPinned(point=point_id, by=pin.by or "somebody", reason=pin.reason)
