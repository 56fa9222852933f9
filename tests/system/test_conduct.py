# SPDX-License-Identifier: GPL-3.0-or-later
"""How the VMs of a workload are backed up together, in the lab."""

from __future__ import annotations

import pytest

from demo.deployment import Deployment
from tests.system.manager import Manager

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("system"), pytest.mark.timeout(300)]


def test_vms_one_after_the_other_in_their_order(product: Deployment, manager: Manager) -> None:
    order = ("third", "first", "second")
    vms = [word for name in order for word in ("--vm", name)]
    product.overkeep("workload", "create", "row", *vms, "--parallel", "1")
    job = product.overkeep("backup", "row", "--json").json()
    told = product.overkeep("events", "--job", job["id"], "--limit", "1000", "--json").json()
    steps = [(event["vm_name"], event["kind"]) for event in told if event["kind"] in ("vm.started", "vm.succeeded")]
    assert steps == [(name, kind) for name in order for kind in ("vm.started", "vm.succeeded")]
    assert manager.open_things() == []
