# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets as mounts: mounted when needed, and proved to be the right mount before anything is written to them."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from overkeep import proc
from overkeep.blocks.errors import TargetReadOnly, on_target
from overkeep.config import TargetConfig
from overkeep.errors import CommandFailed, OverkeepError
from overkeep.logs import fields
from overkeep.model.capacity import Space
from overkeep.repository.addresses import answers, in_turn
from overkeep.repository.errors import RepositoryMissing
from overkeep.repository.identity import read_identity

MOUNT_TIMEOUT = 120.0  # seconds for the mount command; a dead NFS server is given up after about two minutes

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_CHECKED = {"hard": "hard", "soft": "soft", "proto": "proto", "vers": "vers", "nfsvers": "vers"}

log = logging.getLogger(__name__)


class TargetNotMounted(OverkeepError):
    """The mount point is a bare folder."""

    code = "target-not-mounted"
    template = (
        "Target {target!r} is not mounted at {path}: writing there would fill this machine's own disk; "
        "mount {source} there or see why the mount failed."
    )
    retry = True


class TargetFolderMissing(OverkeepError):
    """A target that is a path is not there."""

    code = "target-folder-missing"
    template = (
        "The folder {path} of target {target!r} is not there; make it, or mount what should be there, "
        "or correct the target's settings."
    )
    retry = True


class TargetWrongSource(OverkeepError):
    """Something else is mounted at the mount point."""

    code = "target-wrong-source"
    template = (
        "At {path} {found} is mounted and target {target!r} is {source}; "
        "unmount what is there or correct the target's settings."
    )


class TargetOptions(OverkeepError):
    """The mount lacks options that the settings ask for."""

    code = "target-options"
    template = (
        "Target {target!r} at {path} is mounted without {missing}, which its settings ask for; "
        "unmount it so that it is mounted anew, or correct the options."
    )


class MountFailed(OverkeepError):
    """The mount command failed."""

    code = "mount-failed"
    template = (
        "Target {target!r} ({source}) cannot be mounted at {path}: {reason}; "
        "check the server, its export and the network."
    )
    retry = True


class AddressDiffers(OverkeepError):
    """An address of a target leads to something else than the others."""

    code = "target-address-differs"
    template = (
        "Target {target!r} at {source} holds {found} and should hold the repository {meant}: all its addresses must be "
        "those of one export; correct `source` and `addresses` in the target's settings."
    )


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A line of mountinfo; `options` are those of the mount and of its file system."""

    mountpoint: Path
    source: str
    kind: str
    options: frozenset[str]


class Mounts:
    """The targets of one service. Safe to use from several threads; one mount command at a time for a target.

    `host` decides which of several addresses of a target is used; the name of this machine if it is not given.
    """

    def __init__(self, targets: tuple[TargetConfig, ...], *, host: str = "") -> None:
        self._targets = {target.name: target for target in targets}
        self._locks = {target.name: threading.Lock() for target in targets}
        self._host = host or socket.gethostname()

    @property
    def names(self) -> frozenset[str]:
        """Names of the targets."""
        return frozenset(self._targets)

    def ensure(self, name: str, *, repository: str = "") -> Path:
        """Mount the target `name` unless it is mounted, check it, and return its root; a path must be there.

        Of several addresses the one of this host is used, and the next one when that does not answer, also when it
        stops to answer later: who waits for it then goes on waiting, everybody else uses the next one. With
        `repository` (its id) an address at which another one is found is passed by.

        Raises `MountFailed`, `TargetNotMounted`, `TargetWrongSource`, `TargetOptions`, `TargetFolderMissing`,
        `AddressDiffers`; KeyError for an unknown name.
        """
        target = self._targets[name]
        if not target.mounted:
            return _require_folder(target)
        with self._locks[name]:
            found = find_mount(target.mountpoint)
            if found is not None and self._is_away(target, found):
                _unmount(target)
                found = None
            if found is None:
                self._mount(target, repository)
            return require_mounted(target)

    def _is_away(self, target: TargetConfig, found: Mount) -> bool:
        """Whether the address that is mounted does not answer while another one does."""
        if not target.addresses or answers(found.source, target.mount_options):
            return False
        others = [source for source in target.sources if _plain(source) != _plain(found.source)]
        answering = next((source for source in others if answers(source, target.mount_options)), None)
        if answering is None or len(others) == len(target.sources):  # nothing better, or not one of ours
            return False
        log.warning("address away %s", fields(target=target.name, source=found.source, answering=answering))
        return True

    def _mount(self, target: TargetConfig, repository: str) -> None:
        """Mount the first address of this host that can be: those that answer come before those that do not."""
        sources = in_turn(target.sources, host=self._host, target=target.name)
        if len(sources) == 1:
            mount(target, target.source)
            return
        failures: list[OverkeepError] = []
        for source in sorted(sources, key=lambda source: not answers(source, target.mount_options)):
            try:
                mount(target, source)
                _require_same(target, source, repository)
            except (MountFailed, AddressDiffers) as error:
                log.warning("address passed by %s", fields(target=target.name, source=source, error=repr(str(error))))
                failures.append(error)
            else:
                return
        raise failures[0]


def mount(target: TargetConfig, source: str) -> None:
    """Call the mount command of `target` for one of its sources; raise `MountFailed`."""
    command = [*target.mount_command, "-o", target.mount_options, source, str(target.mountpoint)]
    try:
        target.mountpoint.mkdir(parents=True, exist_ok=True)
        proc.run(command, timeout=MOUNT_TIMEOUT)
    except OSError as error:
        raise _mount_failed(target, source, error.strerror or str(error)) from error
    except CommandFailed as error:
        raise _mount_failed(target, source, str(error)) from error
    log.info("target mounted %s", fields(target=target.name, source=source, path=target.mountpoint))


def _require_same(target: TargetConfig, source: str, repository: str) -> None:
    """Unmount what is there, and raise `AddressDiffers`, unless it holds that repository; any will do when it is ""."""
    if not repository:
        return
    try:
        found = read_identity(target.mountpoint).id
    except RepositoryMissing:
        found = ""
    if found != repository:
        _unmount(target)
        told = f"the repository {found}" if found else "no repository"
        raise AddressDiffers(target=target.name, source=source, found=told, meant=repository)


def _unmount(target: TargetConfig) -> None:
    """Take the mount away without waiting for its server; raise `MountFailed` when that cannot be."""
    command = [*target.unmount_command, str(target.mountpoint)]
    try:
        proc.run(command, timeout=MOUNT_TIMEOUT)
    except (CommandFailed, OSError) as error:
        raise _mount_failed(target, target.source, f"what is mounted there cannot be unmounted ({error})") from error


def require_mounted(target: TargetConfig) -> Path:
    """Return the root of `target` if it is mounted as its settings say, else raise a typed error."""
    found = find_mount(target.mountpoint)
    if found is None:
        raise TargetNotMounted(target=target.name, path=target.mountpoint, source=target.source)
    if _plain(found.source) not in {_plain(source) for source in target.sources}:
        raise TargetWrongSource(target=target.name, path=target.mountpoint, source=target.source, found=found.source)
    missing = _missing_options(target.mount_options, found)
    if missing:
        raise TargetOptions(target=target.name, path=target.mountpoint, missing=", ".join(missing))
    return target.mountpoint


def require_writable(root: Path) -> None:
    """Raise `TargetReadOnly` when the mount at `root` is read-only or its root may not be written by us."""
    with on_target(root):
        read_only = bool(os.statvfs(root).f_flag & os.ST_RDONLY)
        allowed = os.access(root, os.W_OK | os.X_OK)
    if read_only:
        raise TargetReadOnly(path=root, reason="it is mounted read-only")
    if not allowed:
        raise TargetReadOnly(path=root, reason="the rights of the folder do not let this user write")


def space_of(root: Path) -> Space:
    """The space of the file system at `root`, as a user who is not root may use it."""
    with on_target(root):
        found = os.statvfs(root)
    unit = found.f_frsize
    return Space(size=found.f_blocks * unit, used=(found.f_blocks - found.f_bfree) * unit, free=found.f_bavail * unit)


def find_mount(mountpoint: Path) -> Mount | None:
    """Return what is mounted exactly at `mountpoint`, the topmost one, or None."""
    wanted = Path(os.path.realpath(mountpoint.parent)) / mountpoint.name
    found = [mount for mount in parse_mountinfo(_MOUNTINFO.read_text()) if mount.mountpoint == wanted]
    return found[-1] if found else None


def parse_mountinfo(text: str) -> list[Mount]:
    """Read lines of /proc/PID/mountinfo (proc(5)); a later mount at the same place covers an earlier one."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        mounts.append(
            Mount(
                mountpoint=Path(_unescaped(before[4])),
                source=_unescaped(after[1]),
                kind=after[0],
                options=frozenset((*before[5].split(","), *after[2].split(","))),
            )
        )
    return mounts


def _require_folder(target: TargetConfig) -> Path:
    with on_target(target.mountpoint):
        there = target.mountpoint.is_dir()
    if not there:
        raise TargetFolderMissing(target=target.name, path=target.mountpoint)
    return target.mountpoint


def _missing_options(wanted: str, found: Mount) -> list[str]:
    """Options that decide over data safety and are not in force; only the kernel's NFS client shows them."""
    if found.kind not in ("nfs", "nfs4"):
        return []
    shown = dict(_split(option) for option in found.options)
    missing = []
    for option in wanted.split(","):
        name, value = _split(option)
        if name not in _CHECKED:
            continue
        actual = shown.get(_CHECKED[name])
        # vers=4 is shown as vers=4.2, proto=tcp as proto=tcp or proto=tcp6
        if actual is None or not actual.startswith(value):
            missing.append(option)
    return missing


def _split(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    return name, value


def _plain(source: str) -> str:
    return source.rstrip("/") or "/"


def _unescaped(text: str) -> str:
    """Undo the octal escapes of space, tab, line feed and backslash."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _mount_failed(target: TargetConfig, source: str, reason: str) -> MountFailed:
    return MountFailed(target=target.name, source=source, path=target.mountpoint, reason=reason)
