# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo prints: numbered steps with their times, checks, and a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from overkeep.units import human_size


class CheckFailed(Exception):
    """Something is not as it must be; the demo ends with status 1."""


@dataclass
class Step:
    """One row of the table; `moved` and `stored` are bytes, None where a step moves none."""

    title: str
    seconds: float = 0.0
    moved: int | None = None
    stored: int | None = None
    remark: str = ""


@dataclass
class Journal:
    """Prints while the demo runs and remembers what the table needs."""

    console: Console = field(default_factory=lambda: Console(file=sys.stdout, highlight=False, soft_wrap=True))
    steps: list[Step] = field(default_factory=list)
    checks: int = 0

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Announce a step, time it, and keep it for the table."""
        step = Step(title)
        self.steps.append(step)
        self.console.print(f"[bold]── {len(self.steps)}. {title}[/bold]")
        begun = time.monotonic()
        try:
            yield step
        finally:
            step.seconds = time.monotonic() - begun
        moved = f", {human_size(step.moved)} moved" if step.moved is not None else ""
        self.console.print(f"   [dim]{step.seconds:.1f} s{moved}[/dim]")

    def say(self, text: str) -> None:
        """Print a line of the present step; it may hold anything, so no mark-up is read from it."""
        for line in text.rstrip().splitlines():
            self.console.print(f"   {line}", markup=False)

    def check(self, what: str, *, holds: bool, otherwise: str = "") -> None:
        """Print a check that holds; raise `CheckFailed` for one that does not."""
        if not holds:
            raise CheckFailed(f"{what}: does not hold. {otherwise}".strip())
        self.checks += 1
        self.console.print(f"   [green]✓[/green] {what}")

    def table(self) -> None:
        """Print the summary."""
        table = Table("step", "seconds", "moved", "stored", "", title=None)
        for step in self.steps:
            moved = human_size(step.moved) if step.moved is not None else ""
            stored = human_size(step.stored) if step.stored is not None else ""
            table.add_row(step.title, f"{step.seconds:.1f}", moved, stored, step.remark)
        self.console.print(table)
