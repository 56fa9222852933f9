# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a repository is: made once, never changed."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from pathlib import Path

from overkeep.repository import documents
from overkeep.repository.errors import RepositoryMissing
from overkeep.repository.layout import IDENTITY
from overkeep.units import utc_now


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What `overkeep.json` says."""

    id: str
    version: int
    created: dt.datetime


def read_identity(root: Path) -> Identity:
    """Read the identity; raise `RepositoryMissing`, `RepositoryTooNew` or `DocumentDamaged`."""
    document = documents.read(root / IDENTITY, "repository")
    if document is None:
        raise RepositoryMissing(path=root)
    created = dt.datetime.fromisoformat(document["created"])
    return Identity(id=document["id"], version=document["version"], created=created)


def create_identity(root: Path) -> Identity:
    """Make `root` a repository if it is none, and return the identity it has then."""
    path = root / IDENTITY
    if documents.read(path, "repository") is None:
        made = {"id": str(uuid.uuid4()), "created": utc_now().isoformat()}
        documents.create(path, {**documents.envelope("repository"), **made})
    return read_identity(root)
