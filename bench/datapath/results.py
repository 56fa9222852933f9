# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of results: the rows of the last run, and those of former runs that this one did not measure."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.datapath.measure import Row

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A row, the part of the measurements that it belongs to, and when and how it came about."""

    row: Row
    part: str
    at: dt.datetime
    rounds: int
    quick: bool

    def document(self) -> Document:
        """The row as it is written to the file of results."""
        measured = self.at.isoformat(timespec="seconds")
        return {
            **self.row.document(),
            "part": self.part,
            "measured": measured,
            "rounds": self.rounds,
            "quick": self.quick,
        }


def together(kept: Sequence[Document], measured: Sequence[Measured]) -> list[Document]:
    """What the file is to hold: rows that were measured now take the place of all former ones of their part.

    Of a file in which rows have no part, those of the same name against the same are replaced.
    """
    new = [each.document() for each in measured]
    parts, names = {row["part"] for row in new}, {_name(row) for row in new}
    return [row for row in kept if row.get("part") not in parts and _name(row) not in names] + new


def load(path: Path) -> list[Document]:
    """The rows of a file; none when it is not there."""
    if not path.exists():
        return []
    rows: list[Document] = json.loads(path.read_text())["rows"]
    return rows


def store(path: Path, rows: Sequence[Document]) -> None:
    """Write the file in one step, so that one that is interrupted leaves the former."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps({"rows": list(rows)}, indent=1) + "\n")
    partial.replace(path)


def _name(row: Document) -> tuple[str, str]:
    return row["name"], row["against"]
