# SPDX-License-Identifier: GPL-3.0-or-later
"""A site whose controllers are processes of their own: a Manager and a mover that they use, a data base they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overkeep.controller.store import Store
from tests.controller.child import Child
from tests.controller.twins import serve
from tests.controller.world import World
from tests.postgres import driver


class Site(World):
    """A Manager and a mover that controllers in other processes use, and a data base that they share."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.url = url
        self.store.close()
        self.store = Store(driver(url))
        self.children: list[Child] = []
        self._end = serve(folder / "twins", {"engine": self.memory, "mover": self.mover})

    def start(self) -> None:
        """Ask for jobs here, but work on none."""
        super().start()
        self.stop()

    def until(self, probe: Any, *, seconds: float = 90) -> Any:
        """As of any world; what the controllers logged is told when it does not happen."""
        try:
            return super().until(probe, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error

    def logs(self) -> str:
        """What each controller logged."""
        return "\n----\n".join(self.log(number) for number in range(len(self.children)))

    def log(self, number: int) -> str:
        """What a controller logged; the first one is 0."""
        return (self.folder / f"controller-{number}.log").read_text()

    def begin_controller(self) -> Child:
        """One that works when this returns."""
        child = Child(self.folder, self.url, self.folder / f"controller-{len(self.children)}.log")
        self.children.append(child)
        child.await_ready()
        assert child.alive, child.log.read_text()
        return child

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.end()
        self._end()
        super().__exit__()
