# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep check`: whether everything that an installation needs is as it must be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from overkeep import config
from overkeep.api.documents import FindingOut
from overkeep.cli import exits, output
from overkeep.cli.client import Client
from overkeep.cli.output import AsJson
from overkeep.config import ControllerConfig
from overkeep.model.findings import Verdict


def check(
    settings: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Look from this machine with the controller's settings, whether the controller runs or not.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Look at the controller, the Manager, the targets and all movers, and say how to mend what is wrong.

    The exit status is 0 when nothing has failed, warnings or not, and 1 else.
    """
    found = _ask() if settings is None else _look(settings)
    if as_json:
        output.documents(found)
    else:
        output.table(("WHAT", "WHICH", "IS", "WHY"), [(f.area, f.subject, f.verdict, f.text) for f in found])
    return exits.FAILED if any(finding.verdict is Verdict.FAILED for finding in found) else exits.OK


def _ask() -> list[FindingOut]:
    with Client() as client:
        return client.get("/api/v1/check", list[FindingOut])


def _look(path: Path) -> list[FindingOut]:
    from overkeep.controller.inspection import inspection_of  # the Manager's SDK is not loaded for other commands

    with inspection_of(config.load(ControllerConfig, path)) as inspection:
        return [FindingOut.model_validate(finding) for finding in inspection.run()]
