# SPDX-License-Identifier: GPL-3.0-or-later
"""What trying the targets out showed last, by the machine it was done from."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from overkeep.controller.records import Failure, ProbeResult
from overkeep.controller.store import schema as t
from overkeep.controller.store.database import alone
from overkeep.model.probes import Probe

_PROBE = TypeAdapter(Probe)


class ProbeRows:
    """The table of probes: one row for each target and host."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def put(self, result: ProbeResult) -> None:
        """Keep a result in place of the one before of the same target and host."""
        columns = t.target_probe.c
        found = _PROBE.dump_json(result.probe).decode() if result.probe else ""
        row = {
            "target": result.target,
            "host": result.host,
            "time": result.time,
            "error_code": result.failure.code,
            "error": result.failure.text,
            "found": found,
        }
        with self._engine.begin() as connection:
            alone(connection, "probes")
            connection.execute(
                sa.delete(t.target_probe).where(columns.target == result.target, columns.host == result.host)
            )
            connection.execute(sa.insert(t.target_probe).values(row))

    def of(self, target: str) -> tuple[ProbeResult, ...]:
        """The last results of a target, that of the controller first, then by host."""
        query = sa.select(t.target_probe).where(t.target_probe.c.target == target).order_by(t.target_probe.c.host)
        with self._engine.connect() as connection:
            return tuple(_value(row) for row in connection.execute(query).all())


def _value(row: Any) -> ProbeResult:
    return ProbeResult(
        target=row.target,
        host=row.host,
        time=row.time,
        failure=Failure(code=row.error_code, text=row.error),
        probe=_PROBE.validate_json(row.found) if row.found else None,
    )
