# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits with windows, by the real clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from demo.deployment import Deployment, wait_until
from tests.system import jobs

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.xdist_group("system"), pytest.mark.timeout(300)]

VM = "told"


@pytest.fixture(autouse=True)
def mended(product: Deployment) -> Iterator[None]:
    """No test leaves a limit."""
    yield
    product.overkeep("limit", "set", "total", "default", "--window", "")


def test_a_backup_waits_for_the_end_of_a_window(product: Deployment) -> None:
    product.overkeep("workload", "create", "windowed", "--vm", VM)
    now = dt.datetime.now(dt.UTC)
    end = (now + dt.timedelta(seconds=100)).replace(second=0)  # 40 to 100 seconds from now
    begin = end - dt.timedelta(hours=2)
    product.overkeep("limit", "set", "total", "8", "--window", f"{begin:%H:%M}-{end:%H:%M}=0", "--zone", "UTC")
    [total] = [one for one in product.overkeep("limit", "list", "--json").json() if one["resource"] == "total"]
    assert (total["capacity"], total["then"]) == (0, 8)
    assert dt.datetime.fromisoformat(total["until"]) == end.replace(microsecond=0)
    job = product.overkeep("backup", "windowed", "--no-wait", "--json").json()["id"]
    until = f"{end:%a %H:%M}".lower()
    told = f"waiting for the total, which takes nothing new until {until} (UTC)"
    wait_until(lambda: told in product.overkeep("job", "show", job).text, what="the reason")
    assert jobs.end(product, job, seconds=200) == "succeeded"
    started = next(
        event["time"]
        for event in product.overkeep("events", "--job", job, "--json").json()
        if event["kind"] == "vm.started"
    )
    assert dt.datetime.fromisoformat(started) >= end.replace(microsecond=0)
