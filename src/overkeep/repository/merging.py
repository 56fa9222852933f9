# SPDX-License-Identifier: GPL-3.0-or-later
"""The intent of a merge as a document: `merge.json` in the folder of a disk."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overkeep.blocks.errors import WriterReplaced, on_target
from overkeep.blocks.files import sync_folder
from overkeep.blocks.merge.intent import Intent, Phase
from overkeep.blocks.merge.plan import Run
from overkeep.blocks.qcow2.layout import is_bare_name
from overkeep.repository import documents, layout
from overkeep.repository.documents import Document
from overkeep.repository.errors import DocumentDamaged


class MergeJournal:
    """Keeps the intent of a merge in `folder` (`overkeep.blocks.merge.intent.Journal`)."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / layout.MERGE
        self._owner = secrets.token_hex(8)

    def look(self) -> Intent | None:
        """The intent that is there; whose it is does not change."""
        document = documents.read(self._path, "merge")
        return None if document is None else _value(document, self._path)

    def load(self) -> Intent | None:
        """As `Journal.load`."""
        document = documents.read(self._path, "merge")
        if document is None:
            return None
        intent = _value(document, self._path)
        documents.write(self._path, {**document, "owner": self._owner})
        return intent

    def begin(self, intent: Intent) -> None:
        """As `Journal.begin`."""
        documents.create(self._path, {**documents.envelope("merge"), **_fields(intent), "owner": self._owner})
        self.check()

    def save(self, intent: Intent) -> None:
        """As `Journal.save`."""
        documents.write(self._path, {**self._mine(), **documents.envelope("merge"), **_fields(intent)})

    def check(self) -> None:
        """As `Journal.check`."""
        self._mine()

    def clear(self) -> None:
        """As `Journal.clear`."""
        self._mine()
        with on_target(self._path):
            self._path.unlink()
        sync_folder(self._path.parent)

    def _mine(self) -> Document:
        document = documents.read(self._path, "merge")
        if document is None or document["owner"] != self._owner:
            raise WriterReplaced(path=self._path)
        return document


def _fields(intent: Intent) -> Document:
    return {
        "images": list(intent.run.images),
        "base": intent.run.base,
        "carrier": intent.carrier,
        "carrier_size": intent.carrier_size,
        "to_move": intent.to_move,
        "phase": str(intent.phase),
        "done": intent.done,
        "l1_offset": intent.l1_offset,
        "method": intent.method,
    }


def _value(document: Mapping[str, Any], path: Path) -> Intent:
    names = (*document["images"], *([document["base"]] if document["base"] is not None else ()))
    for name in names:
        if not is_bare_name(name):  # what it names is unlinked in the end
            raise DocumentDamaged(path=path, reason=f"{name!r} is not the name of an image")
    if document["carrier"] is not None and document["carrier"] not in document["images"]:
        raise DocumentDamaged(path=path, reason="its carrier is not one of its images")
    return Intent(
        run=Run(images=tuple(document["images"]), base=document["base"]),
        carrier=document["carrier"],
        carrier_size=document["carrier_size"],
        to_move=document["to_move"],
        phase=Phase(document["phase"]),
        done=document["done"],
        l1_offset=document["l1_offset"],
        method=document["method"],
    )
