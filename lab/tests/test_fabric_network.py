# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of labs on one machine: who reaches whom, that they do not collide, and that nothing is left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ovirtlab.fabric import net
from ovirtlab.fabric.assembly import Fabric
from ovirtlab.fabric.processes import in_netns
from ovirtlab.ledger import Ledger

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_isolation"), pytest.mark.xdist_group("fabric")]


def reaches(netns: str | None, address: str) -> bool:
    """Whether a TCP connection gets an answer, be it a refusal, within a second."""
    probe = (
        "import socket, sys\ns = socket.socket(); s.settimeout(1)\nsys.exit(s.connect_ex((sys.argv[1], 9)) != 111)\n"
    ).replace("\\\n", "\n")
    command = in_netns(netns, ["/usr/bin/python3", "-c", probe, address])
    return subprocess.run(command, timeout=90, check=False).returncode == 0


def test_all_reach_all(fabric: Fabric):
    network = fabric.network
    places = {None: network.root, network.server_netns: network.server}
    places |= {network.host_netns[name]: address for name, address in network.hosts.items()}
    assert len(places) == 4
    for netns in places:
        assert all(reaches(netns, address) for address in places.values()), netns


def test_two_labs_have_different_networks_and_take_nothing_of_one_another(tmp_path: Path):
    ledgers = [Ledger(tmp_path / name) for name in ("a", "b")]
    built = []
    try:
        for ledger, name in zip(ledgers, ("a", "b"), strict=True):
            (tmp_path / name).mkdir()
            built.append(net.build(["h1"], ledger))
        assert built[0].server != built[1].server
        assert reaches(built[0].host_netns["h1"], built[0].root)
        # the link may go with its namespace before it is looked for
        assert len([name for name in net.remove(ledgers[0].lab_id) if name.startswith("network namespace")]) == 2
        assert net.existing(ledgers[0].lab_id) == []
        assert reaches(built[1].host_netns["h1"], built[1].server)
    finally:
        for ledger in ledgers:
            net.remove(ledger.lab_id)
    assert net.existing(ledgers[1].lab_id) == []
    assert net.remove(ledgers[1].lab_id) == []


def test_every_namespace_and_link_is_in_the_ledger_before_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ledger = Ledger(tmp_path)
    run, seen = net.run, []

    def checked(command: list[str], **more: float) -> str:
        recorded = {entry.name for entry in ledger.entries()}
        made = {word for word in command if word.startswith("ovl-")}
        assert made <= recorded
        seen.extend(made)
        return str(run(command, **more))

    monkeypatch.setattr(net, "run", checked)
    try:
        net.build(["h1"], ledger)
    finally:
        monkeypatch.undo()
        net.remove(ledger.lab_id)
    assert seen
