# SPDX-License-Identifier: GPL-3.0-or-later
"""What a subcommand of `overkeep-mover` is: a module with these names."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from overkeep import exits
from overkeep.mover.copy_terms import Watch


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a command did: one line for people, a JSON document for programs, and the exit status."""

    line: str
    document: Mapping[str, Any]
    status: int = exits.OK


class Command(Protocol):
    """A subcommand; a module of this package is one."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments; `--json` is added for all."""

    def run(self, options: argparse.Namespace, watch: Watch) -> Report:
        """Do it; `watch` hears how far it is and stops it. Raises `OverkeepError`."""
