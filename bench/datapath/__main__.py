# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m bench.datapath [--quick] [--rounds N] [--only PART]...`: prints a table, writes `bench/results.json`.

The ratio says how many times better we are. Disks and images lie in a temporary folder of `--folder`. With `--only`,
the file keeps the rows of the other parts as they are; each says when it was measured.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.datapath import backups, images
from bench.datapath.backups import Bench
from bench.datapath.disks import make_disk, sizes
from bench.datapath.measure import Row
from bench.datapath.results import Measured, load, store, together
from bench.datapath.servers import Host, host
from overkeep.units import utc_now

RESULTS = Path(__file__).parents[1] / "results.json"

_WIDTH = 180  # of the table in a file, where no screen says it

Part = Callable[[Bench, Host], Iterator[Row]]
PARTS: dict[str, Part] = {
    "full": backups.full,
    "zstd": lambda bench, _: backups.compressed(bench),
    "incremental": backups.incremental,
    "compare": lambda bench, _: backups.compared(bench),
    "empty": lambda bench, _: backups.empty(bench),
    "merge": lambda bench, _: images.merge(bench),
    "restore": lambda bench, _: images.restore(bench),
    "verify": lambda bench, _: images.verify(bench),
}


def main() -> int:
    """Measure, print and write; the status is 1 when a requirement does not hold."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    options = _options()
    kept = load(RESULTS) if options.only else []  # before the minutes that it takes: what cannot be kept is told now
    measured = list(_shown(_measured(options)))
    rows = [each.row for each in measured]
    _print(rows)
    store(RESULTS, together(kept, measured))
    return 0 if all(row.holds for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".cache"))
    parser.add_argument("--quick", action="store_true", help="a smaller disk and fewer rounds")
    parser.add_argument("--rounds", type=int, help="pairs of runs of each row")
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="only these parts")
    return parser.parse_args()


def _measured(options: argparse.Namespace) -> Iterator[Measured]:
    size, data = sizes(quick=options.quick)
    options.folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-") as name, host() as one:
        folder = Path(name).resolve()
        disk = folder / "disk.raw"
        make_disk(disk, size=size, data=data)
        bench = Bench(disk=disk, size=size, folder=folder, rounds=options.rounds or (3 if options.quick else 5))
        for part in options.only or PARTS:
            for row in PARTS[part](bench, one):
                yield Measured(row=row, part=part, at=utc_now(), rounds=bench.rounds, quick=options.quick)


def _shown(rows: Iterable[Measured]) -> Iterator[Measured]:
    """Say each row as it comes: a whole run takes minutes."""
    for each in rows:
        sys.stderr.write(f"{_words(each.row)}\n")
        yield each


def _words(row: Row) -> str:
    theirs = "" if row.theirs is None else f", theirs {row.theirs:.2f}"
    ratio = "" if row.ratio is None else f", ratio {row.ratio:.2f} (required {row.required})"
    return f"{row.name} | {row.against}: ours {row.ours:.2f}{theirs} {row.unit}{ratio}"


def _print(rows: list[Row]) -> None:
    table = Table(
        "what", "against", "ours", "theirs", "", "ratio", "required", "holds", "where the time goes (thread s, medians)"
    )
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        stages = " ".join(f"{stage} {seconds:.1f}" for stage, seconds in row.notes.items())
        theirs = "" if row.theirs is None else f"{row.theirs:.2f}"
        cells = (row.name, row.against, f"{row.ours:.2f}", theirs, row.unit, ratio, str(row.required or ""))
        table.add_row(*cells, "yes" if row.holds else "NO", stages)
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


if __name__ == "__main__":
    sys.exit(main())
