# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of backups, in the product and in the Manager, and what a look at the installation finds."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from demo.deployment import Deployment, Lab, wait_until
from tests.system.manager import Manager

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("system"), pytest.mark.timeout(300)]


def in_manager(manager: Manager, vm: str) -> list[str]:
    """What stands in the Manager's own log under a VM, oldest first."""
    vm_id = manager.vm(vm).id
    found = manager.system.events_service().list(search="origin = Overkeep", max=1000)
    mine = [event for event in found if event.vm is not None and event.vm.id == vm_id]
    return [event.description for event in sorted(mine, key=lambda event: int(event.id))]


def test_the_manager_shows_what_was_done_with_a_vm_once(product: Deployment, manager: Manager) -> None:
    product.overkeep("workload", "create", "told", "--vm", "told")
    product.overkeep("backup", "told")
    wait_until(lambda: len(in_manager(manager, "told")) >= 2, what="the events of the first backup")
    assert in_manager(manager, "told") == ["Backup of VM 'told' began", "Backup of VM 'told' succeeded"]
    job = product.overkeep("backup", "told", "--no-wait", "--json").json()["id"]
    product.services["controller"].stop(signal.SIGKILL)
    product.start_controller()
    product.overkeep("job", "follow", job)
    wait_until(lambda: len(in_manager(manager, "told")) >= 4, what="the events of the second backup")
    assert Counter(in_manager(manager, "told")) == {"Backup of VM 'told' began": 2, "Backup of VM 'told' succeeded": 2}

    of_job = product.overkeep("events", "--job", job, "--limit", "1000", "--json").json()
    kinds = Counter(event["kind"] for event in of_job)
    for kind in ("job.queued", "job.started", "vm.started", "point.made", "vm.succeeded", "job.succeeded"):
        assert kinds[kind] == 1, kind
    assert [event["seq"] for event in of_job] == sorted(event["seq"] for event in of_job)
    started = product.overkeep("events", "--kind", "controller.started", "--json").json()
    assert len(started) >= 2, "the controller was killed, and began again"


def test_a_look_at_an_installation_that_is_well(lab: Lab, product: Deployment) -> None:
    found = product.overkeep("check", "--json").json()
    bad = [finding for finding in found if finding["verdict"] == "failed"]
    assert bad == []
    hosts = {host["name"] for host in lab.facts["hosts"]}
    assert {finding["subject"] for finding in found if finding["area"] == "mover"} == hosts
    for host in hosts:
        assert {finding["area"] for finding in found if finding["subject"].startswith(f"{host}: ")} == {
            "certificate",
            "ovirt-imageio",
            "target",
        }
    tickets = [finding for finding in found if finding["area"] == "ovirt-imageio"]
    assert {finding["verdict"] for finding in tickets} == {"ok"}


def test_a_look_finds_a_mover_that_is_down(product: Deployment) -> None:
    product.services["mover-host1"].stop()
    try:
        finished = product.overkeep("check", "--json", expect=1)
        [lost] = [finding for finding in finished.json() if finding["verdict"] == "failed"]
        assert (lost["area"], lost["subject"]) == ("mover", "host1")
    finally:
        product.start_mover("host1")
    wait_until(lambda: product.overkeep("movers", expect=None).status == 0, what="the mover")
