# SPDX-License-Identifier: GPL-3.0-or-later
"""Several addresses of one export: whose turn it is, and what is done with those of real NFS servers."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from overkeep.config import MOUNT_OPTIONS, TargetConfig
from overkeep.model.probes import Terms
from overkeep.repository import addresses
from overkeep.repository.addresses import answers, in_turn
from overkeep.repository.identity import create_identity
from overkeep.repository.mounts import AddressDiffers, MountFailed, Mounts, find_mount
from overkeep.repository.probe import measure
from overkeep.units import MIB
from ovirtlab import teardown
from ovirtlab.fabric import net, nfs
from ovirtlab.fabric.assembly import mount_command, unmount
from ovirtlab.ledger import Ledger

pytestmark = pytest.mark.xdist_group("addresses")  # two NFS servers for all of them
SOURCES = tuple(f"10.0.0.{number}:/backup" for number in range(1, 5))
HOSTS = [f"host{number}" for number in range(200)]


def test_each_host_has_a_turn_of_its_own_and_they_are_spread() -> None:
    first = [in_turn(SOURCES, host=host, target="nfs1")[0] for host in HOSTS]
    assert first == [in_turn(reversed(SOURCES), host=host, target="nfs1")[0] for host in HOSTS]
    counts = [first.count(source) for source in SOURCES]
    assert sum(counts) == len(HOSTS)
    assert min(counts) > len(HOSTS) / len(SOURCES) / 2
    assert all(sorted(in_turn(SOURCES, host=host, target="nfs1")) == sorted(SOURCES) for host in HOSTS)


def test_an_address_that_goes_moves_only_those_that_used_it() -> None:
    gone = SOURCES[2]
    left = [source for source in SOURCES if source != gone]
    for host in HOSTS:
        before = in_turn(SOURCES, host=host, target="nfs1")
        after = in_turn(left, host=host, target="nfs1")
        assert after == tuple(source for source in before if source != gone)


def test_the_port_is_that_of_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert answers("127.0.0.1:/backup", f"vers=3,port={port},hard")
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))  # and nobody listens there
            assert not answers("127.0.0.1:/backup", f"vers=3,port={taken.getsockname()[1]}")
    assert not answers("127.0.0.1:/backup", f"vers=3,port={port}")


@pytest.mark.parametrize(
    ("source", "more", "expected"),
    [
        ("nfs:/backup", (), ("nfs:/backup",)),
        ("nfs:/backup", ("10.0.0.1", "[fe80::1]"), ("nfs:/backup", "10.0.0.1:/backup", "[fe80::1]:/backup")),
        ("[fd00::1]:/a/b", ("[fd00::2]", "[fd00::1]"), ("[fd00::1]:/a/b", "[fd00::2]:/a/b")),
    ],
)
def test_all_addresses_lead_to_the_same_export(source: str, more: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert TargetConfig(name="t", source=source, addresses=more, mountpoint="/mnt").sources == expected


@pytest.mark.parametrize("bad", ["10.0.0.1:/backup", "", "a b", "fe80::1", "-o", "x/y"])
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(ValidationError, match="no address"):
        TargetConfig(name="t", source="nfs:/backup", addresses=(bad,), mountpoint="/mnt")


def test_a_path_has_no_addresses() -> None:
    with pytest.raises(ValidationError, match="neither"):
        TargetConfig(name="t", kind="path", addresses=("10.0.0.1",), mountpoint="/mnt")


@dataclass(frozen=True)
class Servers:
    """Two NFS servers, each in a network of its own, that give out the same folder and one that is another."""

    folder: Path
    servers: tuple[nfs.NfsServer, nfs.NfsServer]
    config: TargetConfig

    def host_of(self, number: int) -> str:
        """A host whose turn begins with a server."""
        source = self.servers[number].source("backup")
        return next(host for host in HOSTS if in_turn(self.config.sources, host=host, target="nfs1")[0] == source)

    def mounted_from(self) -> str:
        found = find_mount(self.config.mountpoint)
        assert found is not None
        return found.source


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Path, tuple[nfs.NfsServer, nfs.NfsServer]]]:
    missing = nfs.missing()
    if missing or not net.can_isolate():
        pytest.skip(missing or "network namespaces cannot be made here")
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="ovk-"))
        stack.callback(subprocess.run, ["rm", "-rf", "--one-file-system", directory], check=True, timeout=90)
        servers = []
        for name in ("one", "two"):
            place = directory / name
            (place / "nfs").mkdir(parents=True)
            stack.callback(teardown.tear_down, place)
            ledger = Ledger(place)
            stack.callback(net.remove, ledger.lab_id)
            network = net.build(["h"], ledger)
            exports = [
                nfs.Export(name="backup", path=directory / "backup"),
                nfs.Export(name="other", path=directory / f"other-{name}"),
            ]
            server = nfs.NfsServer(place / "nfs", network, exports, ledger=ledger)
            stack.callback(server.stop)
            server.start()
            servers.append(server)
        yield directory, (servers[0], servers[1])


@pytest.fixture
def nfs_servers(both: tuple[Path, tuple[nfs.NfsServer, nfs.NfsServer]]) -> Iterator[Servers]:
    folder, servers = both
    for server in servers:
        server.revive()
    place = folder / "mounted"
    config = TargetConfig(
        name="nfs1",
        source=servers[0].source("backup"),
        addresses=(servers[1].address,),
        mountpoint=place,
        options=f"{MOUNT_OPTIONS['nfs3']},port={servers[0].port},mountport={servers[0].mount_port}",
        mount_command=tuple(mount_command()),
    )
    yield Servers(folder, servers, config)
    for server in servers:
        server.revive()
    while find_mount(place) is not None:
        unmount(place)


@pytest.mark.lab
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [0, 1])
def test_each_host_mounts_the_address_of_its_turn(nfs_servers: Servers, number: int) -> None:
    mounts = Mounts((nfs_servers.config,), host=nfs_servers.host_of(number))
    root = mounts.ensure("nfs1")
    assert nfs_servers.mounted_from() == nfs_servers.servers[number].source("backup")
    (root / "seen").write_bytes(b"x")
    assert (nfs_servers.folder / "backup" / "seen").read_bytes() == b"x"
    assert mounts.ensure("nfs1") == root
    found = measure(mounts, "nfs1", terms=Terms(size=4 * MIB, seconds=5))
    assert found.source == nfs_servers.servers[number].source("backup")
    assert found.size == 4 * MIB
    assert [path.name for path in (nfs_servers.folder / "backup").glob(".overkeep-check-*")] == []


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_the_next_address_is_used_when_one_is_away(nfs_servers: Servers) -> None:
    """At the mount, and when it goes away later; nobody goes back while the other one answers."""
    first, second = (server.source("backup") for server in nfs_servers.servers)
    mounts = Mounts((nfs_servers.config,), host=nfs_servers.host_of(0))
    nfs_servers.servers[0].kill()
    root = mounts.ensure("nfs1")
    assert nfs_servers.mounted_from() == second
    nfs_servers.servers[0].revive()
    mounts.ensure("nfs1")
    assert nfs_servers.mounted_from() == second
    (root / "kept").write_bytes(b"kept")
    nfs_servers.servers[1].kill()
    begun = time.monotonic()
    mounts.ensure("nfs1")
    assert time.monotonic() - begun < 60
    assert nfs_servers.mounted_from() == first
    assert (root / "kept").read_bytes() == b"kept"


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_while_no_address_answers_the_mount_stays(nfs_servers: Servers) -> None:
    mounts = Mounts((nfs_servers.config,), host=nfs_servers.host_of(0))
    mounts.ensure("nfs1")
    for server in nfs_servers.servers:
        server.kill()
    mounts.ensure("nfs1")
    assert nfs_servers.mounted_from() == nfs_servers.servers[0].source("backup")


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_nothing_is_mounted_while_no_address_answers(nfs_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overkeep.repository.mounts.MOUNT_TIMEOUT", 30.0)
    for server in nfs_servers.servers:
        server.kill()
    with pytest.raises(MountFailed, match="cannot be mounted"):
        Mounts((nfs_servers.config,), host=nfs_servers.host_of(0)).ensure("nfs1")
    assert find_mount(nfs_servers.config.mountpoint) is None


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_an_address_of_another_export_is_passed_by(nfs_servers: Servers) -> None:
    """The folders `other` differ: only one of them holds the repository that is known."""
    source = nfs_servers.servers[0].source("other")
    config = nfs_servers.config.model_copy(update={"source": source})
    known = create_identity(nfs_servers.folder / "other-two").id
    wrong = next(host for host in HOSTS if in_turn(config.sources, host=host, target="nfs1")[0] == source)
    mounts = Mounts((config,), host=wrong)
    mounts.ensure("nfs1", repository=known)
    assert nfs_servers.mounted_from() == nfs_servers.servers[1].source("other")
    unmount(config.mountpoint)
    with pytest.raises(AddressDiffers, match="all its addresses"):
        mounts.ensure("nfs1", repository="0d6bdb50-6f3f-4d1c-8b75-6d9b4d6b1f5e")
    assert find_mount(config.mountpoint) is None
