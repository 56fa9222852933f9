# SPDX-License-Identifier: GPL-3.0-or-later
"""How workloads are backed up as they and their policies say, in the lab."""

from __future__ import annotations

import pytest

from demo.deployment import CommandError, Deployment, Lab
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


def test_a_point_that_is_damaged_on_the_target_is_found_and_not_built_upon(
    lab: Lab, product: Deployment, manager: Manager
) -> None:
    """The image below is damaged between two backups: the second one finds it, the third is a full one."""
    product.overkeep("policy", "create", "checked", "--verify", "full")
    product.overkeep("workload", "create", "checked", "--vm", "checked")
    product.overkeep("workload", "set-policy", "checked", "checked")
    lab.block_io("checked", "vda", "write -P 0x41 0 8M")
    product.overkeep("backup", "checked")
    [first] = product.overkeep("points", "--workload", "checked", "--json").json()
    assert (first["verification"]["sound"], first["verification"]["share"]) == (True, 1.0)
    path = product.image_path(first, first["images"][0])
    with path.open("r+b") as file:
        content = file.read()
        file.seek(content.index(b"\x41" * 4096) + 4096)
        file.write(b"\x42" * 512)

    lab.block_io("checked", "vda", "write -P 0x43 16M 1M")
    with pytest.raises(CommandError, match="did not verify"):
        product.overkeep("backup", "checked")
    second = product.overkeep("points", "--workload", "checked", "--json").json()[-1]
    assert second["mode"] == "incremental"
    assert second["verification"]["sound"] is False
    assert "do not read as they were written" in second["verification"]["findings"][0]
    assert "NOT SOUND" in product.overkeep("points", "--workload", "checked").text
    assert manager.open_things() == []

    product.overkeep("backup", "checked")
    third = product.overkeep("points", "--workload", "checked", "--json").json()[-1]
    assert (third["mode"], third["verification"]["sound"]) == ("full", True)
    assert f"restore point {second['id']}" in third["images"][0]["reason"]
    told = product.overkeep("events", "--kind", "point.unsound", "--json").json()
    assert [event["point_id"] for event in told] == [second["id"]]
