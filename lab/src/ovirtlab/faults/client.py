# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of a running lab for programs: through its control socket, from any process."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ovirtlab.faults.active import Cleared
from ovirtlab.places import Places
from ovirtlab.remote import call


class AnyFaults(ABC):
    """Breaks and mends a lab, wherever it runs. All raise `ovirtlab.remote.LabError`."""

    @abstractmethod
    def do(self, name: str, **parameters: Any) -> str:
        """Break something; return the id under which it is mended, empty for what is over at once."""

    @abstractmethod
    def active(self) -> list[dict[str, Any]]:
        """What is in force: `id`, `name` and `parameters` of each."""

    @abstractmethod
    def mend(self, which: str = "") -> Cleared:
        """Mend one by its id, all of a name, or all; return the ids, and what stays as it is."""

    def clear(self, which: str = "") -> list[str]:
        """`mend` for those who want the ids only."""
        return self.mend(which).ids

    @contextlib.contextmanager
    def during(self, name: str, **parameters: Any) -> Iterator[None]:
        """Break something for the time of a block."""
        key = self.do(name, **parameters)
        try:
            yield
        finally:
            if key:
                self.clear(key)


class Faults(AnyFaults):
    """Breaks and mends the lab in a directory. All raise `ovirtlab.remote.LabError`.

    faults = Faults.of(lab)                 # what `ovirtlab_factory` returned, or what lab.json holds
    with faults.during("host-kill", host="host1"):
        ...
    """

    def __init__(self, directory: Path) -> None:
        self._places = Places(directory)

    @classmethod
    def of(cls, lab: Mapping[str, Any]) -> Faults:
        """For the lab that `lab.json` describes."""
        return cls(Path(lab["ca_file"]).parent.parent)

    def kinds(self) -> list[dict[str, Any]]:
        """All there are, with their parameters."""
        found: list[dict[str, Any]] = call(self._places, "GET", "faults", "kinds")["kinds"]
        return found

    def do(self, name: str, **parameters: Any) -> str:
        body = {"name": name, "parameters": parameters}
        return str(call(self._places, "POST", "faults", body=body)["id"])

    def active(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = call(self._places, "GET", "faults")["active"]
        return found

    def mend(self, which: str = "") -> Cleared:
        found = call(self._places, "DELETE", "faults", *([which] if which else []))
        return Cleared(found["cleared"], found["remains"])
