# SPDX-License-Identifier: GPL-3.0-or-later
"""What the measurements make of their runs, and what a run of some parts leaves in the file of results."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from bench.datapath.measure import Row, median_stages
from bench.datapath.results import Measured, load, store, together

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def measured(part: str, name: str, ours: float = 1.0, *, at: dt.datetime = NOON) -> Measured:
    row = Row(name=name, against="them", ours=ours, theirs=2.0, ratio=2.0, required=1.0, holds=True)
    return Measured(row=row, part=part, at=at, rounds=5, quick=False)


def told(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(row["name"], row["ours"]) for row in rows]


def test_stages_are_medians_over_the_runs() -> None:
    runs = [{"source": 1.0, "target": 9.0}, {"source": 3.0}, {"source": 2.0, "target": 1.0, "digest": 5.0}]
    assert median_stages(runs) == {"source": 2.0, "target": 1.0, "digest": 0.0}
    assert median_stages([]) == {}


def test_parts_that_are_not_measured_keep_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert load(path) == []
    store(
        path,
        together([], [measured("full", "a"), measured("merge", "b"), measured("merge", "c"), measured("zstd", "d")]),
    )
    assert {"name", "against", "ours", "theirs", "ratio", "required", "holds"} <= set(load(path)[0])
    later = NOON + dt.timedelta(days=1)
    store(path, together(load(path), [measured("merge", "b", 7.0, at=later)]))
    rows = load(path)
    assert told(rows) == [("a", 1.0), ("d", 1.0), ("b", 7.0)], "c is a row that its part has no more"
    assert [row["measured"] for row in rows] == [NOON.isoformat(), NOON.isoformat(), later.isoformat()]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_rows_of_a_file_without_parts_are_known_by_their_names() -> None:
    old = [{"name": name, "against": "them", "ours": 3.0} for name in ("a", "b")]
    assert told(together(old, [measured("merge", "b")])) == [("a", 3.0), ("b", 1.0)]


def test_a_file_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("no JSON")
    with pytest.raises(ValueError, match="Expecting value"):
        load(path)
