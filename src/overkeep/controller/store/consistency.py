# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted of the points of a workload, as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from overkeep.model.consistency import Consistency

_CONSISTENCY = TypeAdapter(Consistency)


def consistency_document(consistency: Consistency) -> dict[str, Any]:
    """As it is kept, and as workflows carry it."""
    document: dict[str, Any] = _CONSISTENCY.dump_python(consistency, mode="json")
    return document


def consistency_value(document: Any) -> Consistency:
    """The reverse; of a workflow that began before there was a choice, what it was then."""
    return _CONSISTENCY.validate_python(document or {})
