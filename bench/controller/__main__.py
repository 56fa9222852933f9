# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m bench.controller [--quick] [--only PART]... [--database KIND]... [--backups N]`: prints and writes rows.

`night`: 10,000 VMs of 500 workloads are due in the same minute. All are admitted; of as many as `--backups` says the
backups are waited for. The twins of Manager and movers and the looks at the rows are in the process that is measured:
what they use of the processor has rows of its own, and the memory is that of all.

`lists`: pages of lists and previews over a million restore points of these VMs, a million jobs and a million events, as
the API answers them.

`outside`: incremental backups of a VM in the lab, with real movers, on SQLite: how long one takes outside of the copy.

The rows go to `bench/controller.json`; those of a part that is left out stay as they are there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bench.controller import lists, night, outside
from bench.controller.lists import Timed
from bench.controller.night import Night
from bench.controller.site import Size
from bench.datapath.measure import Row, limit_row
from tests import postgres

RESULTS = Path(__file__).parents[1] / "controller.json"
FULL, QUICK = Size(workloads=500, vms_each=20), Size(workloads=50, vms_each=20)
ROWS_EACH = 100  # points, jobs and events for each VM
_CPU_EACH = 0.050  # seconds, on PostgreSQL
_PAGE, _PREVIEW = 100.0, 200.0  # ms

_Found = TypeVar("_Found")


def main() -> int:
    """Measure, print and write; the status is 1 when a requirement does not hold."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    options = _options()
    size = QUICK if options.quick else FULL
    rows: list[Row] = []
    for kind in options.database or ("sqlite", "postgresql"):
        for part in options.only or PARTS:
            for row in PARTS[part](kind, size, options):
                rows.append(row)
                limit = "" if row.theirs is None else f" (at most {row.theirs:g})"
                holds = "" if row.holds else f" DOES NOT HOLD {row.notes or ''}"
                sys.stdout.write(f"{row.against}: {row.name}: {row.ours:.3f} {row.unit}{limit}{holds}\n")
                sys.stdout.flush()
    _write(rows)
    return 0 if all(row.holds for row in rows) else 1


def _write(rows: list[Row]) -> None:
    measured = [row.document() for row in rows]
    against = {(row["against"], row["name"]) for row in measured}
    before = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    kept = [row for row in before if (row["against"], row["name"]) not in against]
    RESULTS.write_text(json.dumps({"rows": [*kept, *measured]}, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK.vms} VMs of {QUICK.workloads} workloads")
    parser.add_argument("--only", action="append", choices=tuple(PARTS), help="only this part")
    parser.add_argument("--database", action="append", choices=("sqlite", "postgresql"), help="only this kind")
    parser.add_argument("--backups", type=int, help="how many VMs to back up; the rest waits")
    parser.add_argument("--incrementals", type=int, default=7, help="how many backups in the lab")
    parser.add_argument("--calls", type=int, default=60, help="how often each list is asked for")
    return parser.parse_args()


def _night(kind: str, size: Size, options: argparse.Namespace) -> Iterator[Row]:
    with _databases(kind) as (folder, store_url, jobs_url):
        given = {"store_url": store_url, "jobs_url": jobs_url, "size": size}
        found = _apart(night.run, folder, **given, backups=options.backups or min(size.vms, 1000))
    yield from _rows(kind, size, found)


def _lists(kind: str, size: Size, options: argparse.Namespace) -> Iterator[Row]:
    with _databases(kind) as (folder, store_url, _):
        given = {"store_url": store_url, "size": size, "each": ROWS_EACH, "calls": options.calls}
        found = _apart(lists.run, folder, **given)
    rows = size.vms * ROWS_EACH
    against = f"{kind}, {rows} points, jobs and events of {size.vms} VMs in {size.workloads} workloads, p95"
    for each in found:
        row = limit_row(each.name, against, each.p95, _PREVIEW if each.preview else _PAGE, "ms")
        yield replace(row, notes=_notes(each))


def _notes(found: Timed) -> dict[str, Any]:
    load = round(os.getloadavg()[0], 1)
    worst, processor = round(found.worst, 1), round(found.processor, 1)
    return {"worst": worst, "processor": processor, "items": found.items, "load of the machine": load}


def _apart(act: Callable[..., _Found], folder: Path, **options: Any) -> _Found:
    """In a process of its own: the job engine is one a process, and memory is that of one part."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(act, (folder,), options)


@contextmanager
def _databases(kind: str) -> Iterator[tuple[Path, str, str]]:
    """A folder, and the URLs of our own tables and of those of the job engine."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overkeep-night-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user
        store_url, jobs_url = f"sqlite:///{folder / 'controller.sqlite'}", f"sqlite:///{folder / 'jobs.sqlite'}"
        if kind == "postgresql":
            jobs_url = stack.enter_context(postgres.serving(folder)).new_database()
            store_url = postgres.driver(jobs_url)
        yield folder, store_url, jobs_url


def _outside(kind: str, _size: Size, options: argparse.Namespace) -> Iterator[Row]:
    if kind != "sqlite":
        return
    found = outside.run(options.incrementals)
    against = f"the lab, {options.incrementals} incremental backups of a VM, median"
    row = limit_row("a VM backup outside of the copy and of the Manager's phases", against, found.median, 1.0, "s")
    load = round(os.getloadavg()[0], 1)
    yield replace(row, notes={"each": [round(one, 3) for one in found.outside], "load of the machine": load})
    yield _figure("and in waits for these phases", against, statistics.median(found.engine), "s")
    yield _figure("and in the copy", against, statistics.median(found.copying), "s")


PARTS = {"night": _night, "lists": _lists, "outside": _outside}


def _rows(kind: str, size: Size, found: Night) -> Iterator[Row]:
    against = f"{kind}, {size.vms} VMs of {size.workloads} workloads"
    yield limit_row("everything is admitted or waits in its line after", against, found.admission, 60.0, "s")
    yield limit_row("looks at the rows that found a limit exceeded", against, found.exceeded, 0.0, "")
    yield _figure("looks at the rows", against, found.looks, "")
    yield limit_row("the scheduler's tick in which all is due", against, found.tick, 1.0, "s")
    yield limit_row("the longest decision who begins, of all that wait", against, found.longest_decision, 1.0, "s")
    yield _figure(
        "the longest round of the dispatcher, with what it gives to the engine", against, found.longest_round, "s"
    )
    yield _figure("its rounds on average", against, found.mean_round, "s")
    yield limit_row("memory at its highest, with the twins", against, found.resident, 500.0, "MiB")
    failed = limit_row("VMs that failed", against, found.failed, 0.0, "")
    yield replace(failed, notes={"why": found.why} if found.why else {})
    over = f"over {found.backups} backups and the admission of all"
    own = f"own CPU a VM backup, without the twins and the looks, {over}"
    if kind == "postgresql":
        yield limit_row(own, against, found.own_each, _CPU_EACH, "s")
    else:
        yield _figure(own, against, found.own_each, "s")
    yield _figure(f"CPU of the twins of Manager and movers a VM backup, {over}", against, found.twins_each, "s")
    yield _figure(f"CPU of the looks at the rows a VM backup, {over}", against, found.looks_each, "s")


def _figure(name: str, against: str, value: float, unit: str) -> Row:
    return Row(name=name, against=against, ours=value, theirs=None, unit=unit, holds=True)


if __name__ == "__main__":
    sys.exit(main())
