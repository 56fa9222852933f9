# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of movers of other versions, which tell less or more than this one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from overkeep.mover.orders import ORDER, CopyResult, MergeResult, OrderStatus, VerifyResult

RESULTS: list[tuple[type, dict[str, Any]]] = [
    (CopyResult, {"virtual_size": 4, "covered": 3, "moved": 2, "stored": 1, "seconds": 0.5}),
    (MergeResult, {"moved": 2, "freed": 1, "removed": ["p1.qcow2"], "seconds": 0.5}),
    (VerifyResult, {"images": [], "seconds": 0.5}),
]


def status(**result: Any) -> dict[str, Any]:
    return {"id": "j:d:1", "state": "done", "seq": 3, "result": result}


@pytest.mark.parametrize(("kind", "told"), RESULTS)
def test_a_mover_may_tell_less_or_more(kind: type, told: dict[str, Any]) -> None:
    less = OrderStatus.model_validate_json(json.dumps(status(**told)))
    assert isinstance(less.result, kind)
    more = {**status(**told, tomorrow={"a": 1}, stages={"source": 1.5}), "since": 7}
    found = OrderStatus.model_validate_json(json.dumps(more))
    assert isinstance(found.result, kind)
    if kind is not VerifyResult:
        assert found.result.model_dump()["stages"] == {"source": 1.5}
        assert less.result.model_dump()["stages"] == {}


def test_an_order_says_nothing_that_is_not_understood() -> None:
    image = {"target": "nfs1", "repository": "r", "folder": "w/d"}
    order = {"kind": "merge", "host": "h", **image, "remove": []}
    assert ORDER.validate_python(order)
    with pytest.raises(ValidationError, match="tomorrow"):
        ORDER.validate_python({**order, "tomorrow": 1})
