# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of everything a lab puts outside its own process, so that it can be cleaned up after any crash."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["directory", "supervisor", "server", "process", "netns", "link", "mount", "socket"]

# Every process of a lab carries this variable with the id of the lab.
LAB_VARIABLE = "OVIRTLAB_ID"
NAME = "ledger.jsonl"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One resource: `name` is a path, a pid, a server's address, or the name of a namespace or link.

    `start` is the start time of a process.
    """

    kind: Kind
    name: str
    start: int = 0


def lab_id(directory: Path) -> str:
    """Return the short id of the lab that lives in `directory`; it is in the names of all that belongs to it."""
    return hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:6]


class Ledger:
    """An append-only file of entries. What is written is on disk before the resource is made."""

    def __init__(self, directory: Path) -> None:
        self.lab_id = lab_id(directory)
        self._path = directory / NAME

    def record(self, kind: Kind, name: str | Path) -> None:
        """Note that `name` is about to be made."""
        self._append({"kind": kind, "name": str(name)})

    def record_process(self, pid: int, *, kind: Literal["process", "supervisor"] = "process") -> None:
        """Note a process that was just started; its start time tells it from a later one with the same pid."""
        self._append({"kind": kind, "name": str(pid), "start": start_time(pid) or 0})

    def _append(self, fields: Mapping[str, object]) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, json.dumps(fields).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def entries(self) -> Iterator[Entry]:
        """Yield what was recorded, oldest first; a line cut short by a crash is skipped."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue

    @property
    def exists(self) -> bool:
        """Whether anything was ever recorded, which makes the directory that of a lab."""
        return self._path.exists()


def start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot (proc(5), field 22), None when it is gone."""
    try:
        text = Path("/proc", str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
