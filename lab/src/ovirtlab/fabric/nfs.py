# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup target of a lab: a real NFSv3 server, nfs-ganesha on plain folders, with rpcbind, in the lab's network."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovirtlab.fabric import confined
from ovirtlab.fabric.net import Network
from ovirtlab.fabric.processes import Daemon, StartError, in_netns
from ovirtlab.ledger import Ledger

NFS_PROGRAM, NFS_VERSION = 100003, 3
PORTMAP_PROGRAM, PORTMAP_VERSION, PORTMAP_PORT = 100000, 2, 111
# in a namespace of their own the standard ports are free; on loopback they may not be
ISOLATED_PORT, ISOLATED_MOUNT_PORT = 2049, 20048
LOOPBACK_PORT, LOOPBACK_MOUNT_PORT = 12049, 12048
CAP_SYS_ADMIN = 21  # capabilities(7)
VDSM = 36  # uid and gid of vdsm:kvm, which own everything on oVirt's storage
ANSWER_LIMIT = 2.0
MOUNT_TABLE = Path("/etc/mtab")

_CONFIG = """\
NFS_CORE_PARAM {{
  NFS_Protocols = 3;
  NFS_Port = {port};
  MNT_Port = {mount_port};
  Bind_addr = {address};
  Enable_UDP = false;
  Enable_NLM = false;
  Enable_RQUOTA = false;
  mount_path_pseudo = true;
}}
NFSv4 {{ RecoveryRoot = "{folder}/recovery"; Graceless = true; }}
EXPORT_DEFAULTS {{ SecType = sys; Protocols = 3; Transports = TCP; }}
# No cache of what folders hold: when a part of it is lost, a folder may be listed without an end (ganesha's issue 967).
MDCACHE {{ Dir_Chunk = 0; }}
LOG {{ Default_Log_Level = EVENT; }}
"""
_EXPORT = """\
EXPORT {{
  Export_Id = {number};
  Path = "{path}";
  Pseudo = "/{name}";
  Access_Type = {access};
  Squash = {squash};
  FSAL {{ Name = VFS; }}
}}
"""


@dataclass(frozen=True, kw_only=True)
class Export:
    """A folder that the server gives out as `/name`."""

    name: str
    path: Path
    read_only: bool = False
    squash_root: bool = False


class NfsServer:
    """rpcbind and ganesha.nfsd for some exports. The server can be killed and started again under its clients."""

    def __init__(self, folder: Path, network: Network, exports: Sequence[Export], *, ledger: Ledger) -> None:
        self.address = network.server
        self.exports = tuple(exports)
        self.port, self.mount_port = (
            (ISOLATED_PORT, ISOLATED_MOUNT_PORT) if network.isolated else (LOOPBACK_PORT, LOOPBACK_MOUNT_PORT)
        )
        self._folder = folder
        self._network = network
        self._withheld: frozenset[str] = frozenset()
        self._rpcbind = self._daemon("rpcbind", ["rpcbind", "-f"], ledger)
        server = ["ganesha.nfsd", "-F", "-f", str(self._config), "-L", str(folder / "ganesha.log")]
        self._ganesha = self._daemon("ganesha", [*server, "-p", str(folder / "ganesha.pid")], ledger)

    @property
    def _config(self) -> Path:
        return self._folder / "ganesha.conf"

    @property
    def logs(self) -> tuple[Path, ...]:
        """The log files of the server."""
        return (self._folder / "ganesha.log", self._rpcbind.log, self._ganesha.log)

    def source(self, export: str) -> str:
        """Return what to mount: SERVER:/EXPORT."""
        return f"{self.address}:/{export}"

    def _daemon(self, name: str, program: list[str], ledger: Ledger) -> Daemon:
        command = program
        if self._network.isolated:
            binds = {self._folder / "run": Path("/run"), self._folder / "var": Path("/var/lib/nfs")}
            command = in_netns(self._network.server_netns, confined.command(binds, self._folder, program))
        return Daemon(name, command, log=self._folder / f"{name}.out", ledger=ledger)

    def start(self) -> None:
        """Start what is not running and wait until NFS answers; raise `StartError` with the server's log."""
        self._prepare()
        if not self._portmapper_answers():
            self._rpcbind.start(self._portmapper_answers)
        try:
            self._start_ganesha()
        except StartError:
            self._rpcbind.stop()
            raise

    def _start_ganesha(self) -> None:
        try:
            self._ganesha.start(self.answers, timeout=20)
        except StartError as error:
            log = self._folder / "ganesha.log"
            tail = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else ["(no log)"]
            raise StartError(f"{error} | {' | '.join(tail)}") from error

    def _prepare(self) -> None:
        for part in ("run/ganesha", "var/ganesha", "recovery"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        if not self._network.isolated:
            for place in (Path("/run/ganesha"), Path("/var/lib/nfs/ganesha")):  # without them it ends without a word
                place.mkdir(parents=True, exist_ok=True)
        for export in self.exports:
            if not export.path.exists():
                export.path.mkdir(parents=True)
                os.chown(export.path, VDSM, VDSM)
        self._config.write_text(self._configuration())

    def _configuration(self) -> str:
        head = _CONFIG.format(port=self.port, mount_port=self.mount_port, address=self.address, folder=self._folder)
        return head + "".join(
            _EXPORT.format(
                number=number,
                path=export.path,
                name=export.name,
                access="RO" if export.read_only or export.name in self._withheld else "RW",
                squash="Root_Squash" if export.squash_root else "None",
            )
            for number, export in enumerate(self.exports, start=1)
        )

    def make_read_only(self, name: str) -> None:
        """Give an export out as to be read only; the server is started again for that."""
        known = [export.name for export in self.exports]
        if name not in known:
            raise LookupError(f"there is no export {name!r}; there are: {', '.join(known)}")
        self._give_out(self._withheld | {name})

    def make_writable(self, name: str) -> None:
        """Undo `make_read_only`."""
        self._give_out(self._withheld - {name})

    def _give_out(self, withheld: frozenset[str]) -> None:
        self._withheld = withheld
        self._config.write_text(self._configuration())
        self.restart()

    def answers(self) -> bool:
        """Tell whether NFSv3 answers the NULL call."""
        return answers_null(self.address, self.port, program=NFS_PROGRAM, version=NFS_VERSION)

    def _portmapper_answers(self) -> bool:
        return answers_null(self.address, PORTMAP_PORT, program=PORTMAP_PROGRAM, version=PORTMAP_VERSION)

    def kill(self) -> None:
        """Kill the NFS server as a power failure would; clients keep their mounts."""
        self._ganesha.kill()

    def revive(self) -> None:
        """Start the NFS server again unless it runs."""
        if self._ganesha.pid is None:
            self._start_ganesha()

    def restart(self) -> None:
        """Start the NFS server again, or kill it first when it runs."""
        self.kill()
        self._start_ganesha()

    def freeze(self) -> None:
        """Stop the server without closing its connections."""
        self._ganesha.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._ganesha.signal(signal.SIGCONT)

    def stop(self) -> None:
        """End server and portmapper."""
        self.thaw()
        self._ganesha.stop()
        self._rpcbind.stop()


def missing() -> str | None:
    """Say what this machine lacks for an NFS server, or None when it has all."""
    if os.geteuid() != 0:
        return "the NFS server needs root (nfs-ganesha opens files by handle); start the lab as root to have a target"
    if not _may_mount():
        return "root may not mount here (no CAP_SYS_ADMIN, as in a plain container); give the container that capability"
    absent = [
        name for name in ("ganesha.nfsd", "rpcbind") if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin") is None
    ]
    if absent:
        return (
            f"{' and '.join(absent)} are not installed; install the packages nfs-ganesha, nfs-ganesha-vfs and rpcbind"
        )
    if not MOUNT_TABLE.exists():
        return f"{MOUNT_TABLE} is missing, and the NFS server exports nothing without; link it to /proc/self/mounts"
    return None


def _may_mount() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


def answers_null(address: str, port: int, *, program: int, version: int) -> bool:
    """Send the NULL call of an RPC program (RFC 5531) over TCP; tell whether it was accepted."""
    call = struct.pack(">10I", 1, 0, 2, program, version, 0, 0, 0, 0, 0)
    with contextlib.suppress(OSError):
        with socket.create_connection((address, port), timeout=ANSWER_LIMIT) as connection:
            connection.settimeout(ANSWER_LIMIT)
            connection.sendall(struct.pack(">I", 0x80000000 | len(call)) + call)
            answer = connection.recv(256)
        # record mark, xid, REPLY, MSG_ACCEPTED, verifier (2 words), SUCCESS
        return len(answer) >= 28 and struct.unpack(">7I", answer[:28])[2:] == (1, 0, 0, 0, 0)
    return False
