# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the fabric of a lab together: network, certificates, NFS target and its mounts, an imageio daemon a host."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ovirtlab.environment import Environment, Export
from ovirtlab.fabric import bridges, mounts, net, nfs
from ovirtlab.fabric.commands import CommandError, run
from ovirtlab.fabric.imageio import Imageio, ImageioProxy
from ovirtlab.fabric.mount import LOG_VARIABLE
from ovirtlab.fabric.pki import Authority
from ovirtlab.fabric.processes import in_netns
from ovirtlab.ledger import Ledger
from ovirtlab.places import Places

log = logging.getLogger(__name__)

CONTROLLER = "controller"
MOUNT_LIMIT = 40.0
BRIDGE_LIMIT = 5.0

Report = Callable[[str], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The NFS server: what it gives out, how to mount it, and where the first export is mounted, by host and for the
    controller.
    """

    server: nfs.NfsServer
    options: str
    mounts: Mapping[str, Path]

    @property
    def exports(self) -> Sequence[nfs.Export]:
        """What the server gives out."""
        return self.server.exports

    @property
    def source(self) -> str:
        """What to mount for the first of them."""
        return self.server.source(self.exports[0].name)


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """All parts. `target` is None where the machine cannot have an NFS server; `target_missing` says why."""

    network: net.Network
    authority: Authority
    imageio: Mapping[str, Imageio]
    target: Target | None
    target_missing: str | None
    proxy: ImageioProxy


@contextlib.contextmanager
def assembled(environment: Environment, places: Places, *, ledger: Ledger, report: Report) -> Iterator[Fabric]:
    """Make the fabric for an environment and take it down again on the way out, in the opposite order."""
    hosts = [host.name for host in environment.hosts]
    with ExitStack() as stack:
        with report("network and certificates"):
            stack.callback(net.remove, ledger.lab_id)
            network = net.build(hosts, ledger)
            ledger.record("server", network.server)
            authority = Authority(places.pki)
        missing = nfs.missing()
        target = None
        if missing is None:
            with report("NFS server and mounts"):
                exports = [_export(export, places, ledger, stack) for export in environment.exports]
                target = _target(exports, network, within=(places, ledger, stack))
        with report("imageio daemons"):
            proxy = _proxy(network, authority, (places, ledger, stack))
            daemons = {name: _imageio(name, network, authority, (places, ledger, stack)) for name in hosts}
        yield Fabric(
            network=network,
            authority=authority,
            imageio=daemons,
            target=target,
            target_missing=missing,
            proxy=proxy,
        )


def _export(export: Export, places: Places, ledger: Ledger, stack: ExitStack) -> nfs.Export:
    path = places.export(export.folder_of or export.name)
    if export.size:
        path.mkdir(parents=True)
        ledger.record("mount", path)
        stack.callback(unmount, path)
        options = f"size={export.size},mode=0755,uid={nfs.VDSM},gid={nfs.VDSM}"
        run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], timeout=MOUNT_LIMIT)
    return nfs.Export(name=export.name, path=path, read_only=export.read_only)


def _target(exports: Sequence[nfs.Export], network: net.Network, within: tuple[Places, Ledger, ExitStack]) -> Target:
    places, ledger, stack = within
    places.nfs.mkdir(exist_ok=True)
    server = nfs.NfsServer(places.nfs, network, exports, ledger=ledger)
    stack.callback(server.stop)
    server.start()
    target = Target(
        server=server,
        options=f"vers=3,hard,nolock,proto=tcp,port={server.port},mountport={server.mount_port}",
        mounts={name: places.mount(name) for name in (*network.hosts, CONTROLLER)},
    )
    for name, path in target.mounts.items():
        ledger.record("mount", path)
        stack.callback(unmount, path)
        _mount(target, path, netns=network.host_netns.get(name), log_file=places.nfs / f"mount-{name}.log")
    return target


def mount_command() -> list[str]:
    """Return the command to mount with, to which `-o OPTIONS SOURCE MOUNTPOINT` are added."""
    return [str(Path(sys.executable).with_name("ovirtlab-mount")), "-t", "nfs"]


def _mount(target: Target, path: Path, *, netns: str | None, log_file: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    command = ["env", f"{LOG_VARIABLE}={log_file}", *mount_command(), "-o", target.options, target.source, str(path)]
    run(in_netns(netns, command), timeout=MOUNT_LIMIT)


def unmount(path: Path) -> None:
    """Unmount `path`, lazily when somebody still uses it; nothing when nothing is mounted there.

    Returns when the bridge behind the mount has ended, but for a lazy one, whose bridge ends with its last user.
    """
    if mounts.at(path) is None:
        return
    behind = {bridge.pid for bridge in bridges.running() if bridge.place == str(path)}
    try:
        run(["umount", str(path)], timeout=10)
    except CommandError as error:
        log.warning("%s is unmounted lazily: %s", path, error)
        with contextlib.suppress(CommandError):
            run(["umount", "--lazy", str(path)], timeout=10)
        return
    bridges.wait_gone(behind, seconds=BRIDGE_LIMIT)


def _proxy(network: net.Network, authority: Authority, within: tuple[Places, Ledger, ExitStack]) -> ImageioProxy:
    places, ledger, stack = within
    daemon = ImageioProxy(places.engine / "imageio", address=network.root, ledger=ledger)
    stack.callback(daemon.stop)
    identity = authority.issue("proxy", addresses=[network.root, "127.0.0.1"], names=["localhost", "engine"])
    daemon.start(identity, authority.certificate)
    return daemon


def _imageio(
    name: str, network: net.Network, authority: Authority, within: tuple[Places, Ledger, ExitStack]
) -> Imageio:
    places, ledger, stack = within
    address = network.hosts[name]
    daemon = Imageio(places.host(name) / "imageio", address=address, netns=network.host_netns[name], ledger=ledger)
    stack.callback(daemon.stop)
    # a loopback address is the same on every host, so `localhost` and 127.0.0.1 name the daemon on its own host
    identity = authority.issue(name, addresses=[address, "127.0.0.1"], names=["localhost"])
    daemon.start(identity, authority.certificate)
    return daemon
