# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that wait inside the engine: refused acts, and calls that fail or hang."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from ovirtlab.engine.hooks import CallRule, Hooks, Refusal
from ovirtlab.host.api import HostError

from .conftest import Lab


@pytest.mark.parametrize(
    ("method", "pattern", "path", "expected"),
    [
        ("GET", "vms", "vms", True),
        ("GET", "vms", "vms/1", False),
        ("POST", "vms", "vms", False),
        ("*", "vms", "vms", True),
        ("*", "vms/*/backups", "vms/1/backups", True),
        ("*", "vms/*/backups", "vms/1/nics", False),
        ("*", "vms/*/backups", "vms/1/backups/2", False),
        ("*", "vms/*", "vms/1/backups/2", True),
        ("*", "vms/*", "vms", False),
    ],
)
def test_a_rule_knows_its_calls(method: str, pattern: str, path: str, expected: bool):
    assert CallRule(method=method, pattern=pattern).matches("GET", path) is expected


def test_a_refused_act_is_refused_for_its_object_until_it_is_not():
    hooks = Hooks()
    hooks.check("merge", "vm1")
    remove = hooks.refuse(Refusal(act="merge", text="no merge today", about="vm1"))
    hooks.check("merge", "vm2")
    hooks.check("snapshot", "vm1")
    with pytest.raises(HostError, match="no merge today"):
        hooks.check("merge", "vm1")
    remove()
    hooks.check("merge", "vm1")


def test_the_second_and_third_call_of_a_kind_fail(lab: Lab, http: httpx.Client):
    rule = CallRule(method="GET", pattern="vms", first=2, count=2, status=503)
    remove = lab.engine.context.faults.add_rule(rule)
    assert [http.get("vms").status_code for _ in range(4)] == [200, 503, 503, 200]
    remove()
    again = lab.engine.context.faults.add_rule(CallRule(method="GET", pattern="vms", status=500, count=0))
    failed = http.get("vms", headers={"Accept": "application/json"})
    assert failed.json()["detail"] == "This call was made to fail by a fault on demand."
    assert http.get("hosts").status_code == 200
    again()
    assert http.get("vms").status_code == 200


def test_a_call_hangs_until_its_time_is_over_or_the_fault_is(lab: Lab, http: httpx.Client):
    remove = lab.engine.context.faults.add_rule(CallRule(method="GET", pattern="hosts", seconds=0.3))
    begin = time.monotonic()
    assert http.get("hosts").status_code == 200
    assert time.monotonic() - begin >= 0.3
    remove()

    async def hanging() -> None:
        remove = lab.engine.context.faults.add_rule(CallRule(method="GET", pattern="hosts", seconds=60))
        call = asyncio.create_task(lab.engine.context.faults.before_call("GET", "hosts"))
        await asyncio.sleep(0)
        assert not call.done()
        remove()
        await asyncio.wait_for(call, 5)

    lab.run(hanging())
