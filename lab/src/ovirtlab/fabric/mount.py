# SPDX-License-Identifier: GPL-3.0-or-later
"""`ovirtlab-mount`: mounts an NFSv3 export like mount(8), by the kernel's client or, without one, by a FUSE bridge."""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ovirtlab.fabric import mounts
from ovirtlab.fabric.commands import CommandError
from ovirtlab.fabric.commands import run as run_command
from ovirtlab.fabric.nfsoptions import BadOption, Options, parse_options

FAILURE = 32  # mount(8): the mount failed
USAGE = 1
FIRST_ANSWER = 15.0
READY = "ready"
LIBFUSE = "libfuse3.so.3"
READ_AHEAD_KIB = 8192
LOG_VARIABLE = "OVIRTLAB_MOUNT_LOG"
CLIENT_VARIABLE = "OVIRTLAB_MOUNT_CLIENT"


class MountError(Exception):
    """The export could not be mounted; the text is the sentence for the user."""


def run() -> None:
    """Entry point of `ovirtlab-mount`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Mount as the arguments say; return the exit status of mount(8)."""
    asked = _parser().parse_args(list(arguments))
    try:
        mount(asked.source, Path(asked.mountpoint), ",".join(asked.options + asked.read_only))
    except BadOption as error:
        print(f"ovirtlab-mount: {error}", file=sys.stderr)  # noqa: T201 - what a mount command says goes here
        return USAGE
    except MountError as error:
        print(f"ovirtlab-mount: {asked.source} on {asked.mountpoint}: {error}", file=sys.stderr)  # noqa: T201
        return FAILURE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ovirtlab-mount", description=__doc__)
    parser.add_argument("-t", dest="kind", choices=("nfs",), default="nfs", help="type of file system")
    parser.add_argument("-o", dest="options", action="append", default=[], help="options as in nfs(5), by commas")
    parser.add_argument("-r", dest="read_only", action="append_const", const="ro", default=[], help="same as -o ro")
    parser.add_argument("source", help="SERVER:/EXPORT")
    parser.add_argument("mountpoint", help="an existing folder")
    return parser


def mount(source: str, mountpoint: Path, option_text: str) -> None:
    """Mount `source` on `mountpoint` and return when it is there; raise `BadOption` or `MountError`."""
    server, colon, export = source.partition(":")
    if not (server and colon and export.startswith("/")):
        raise BadOption(f"{source!r} is not of the form SERVER:/EXPORT")
    options = parse_options(option_text)
    place = _checked(mountpoint)
    if _kernel_has_nfs():
        _mount_by_kernel(source, place, option_text)
    else:
        _mount_by_bridge(source, place, options)


def _checked(mountpoint: Path) -> Path:
    place = Path(os.path.realpath(mountpoint))
    found = mounts.at(place)
    if found is not None:
        raise MountError(f"{found.source} is mounted there already; unmount it first")
    if not place.is_dir():
        raise MountError("the mount point is not an existing folder; make it first")
    return place


def _kernel_has_nfs() -> bool:
    forced = os.environ.get(CLIENT_VARIABLE)
    if forced in ("kernel", "fuse"):
        return forced == "kernel"
    if _listed():
        return True
    try:
        run_command(["modprobe", "nfs"], timeout=10)
    except CommandError:
        return False
    return _listed()


def _listed() -> bool:
    lines = Path("/proc/filesystems").read_text().splitlines()
    return any(line.split()[-1] == "nfs" for line in lines)


def _mount_by_kernel(source: str, place: Path, option_text: str) -> None:
    try:
        run_command(
            ["mount", "-t", "nfs", *(["-o", option_text] if option_text else []), source, str(place)], timeout=150
        )
    except CommandError as error:
        raise MountError(str(error)) from error


def _mount_by_bridge(source: str, place: Path, options: Options) -> None:
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "ovirtlab.fabric.nfsfuse", source, str(place), "--status-fd", str(writer)]
    command += ["--wait", str(FIRST_ANSWER), *_bridge_arguments(options)]
    environment = os.environ | {"FUSE_LIBRARY_PATH": LIBFUSE}
    with os.fdopen(reader) as status, Path(os.environ.get(LOG_VARIABLE, os.devnull)).open("ab") as log:
        bridge = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[writer],
            env=environment,
            cwd="/",
        )
        os.close(writer)
        ready, _, _ = select.select([status], [], [], FIRST_ANSWER + 5)
        said = status.readline().strip() if ready else "the bridge did not start in time"
    if said != READY:
        bridge.kill()
        bridge.wait()
        raise MountError(_sentence(said or "the bridge ended without a word"))
    _widen_read_ahead(place)


def _bridge_arguments(options: Options) -> list[str]:
    arguments = ["--port", str(options.port), "--mount-port", str(options.mount_port)]
    if options.soft_seconds is not None:
        arguments += ["--soft", str(options.soft_seconds)]
    return [*arguments, "--read-only"] if options.read_only else arguments


def _sentence(text: str) -> str:
    hints = {
        "Connection refused": "the server does not accept NFS connections; is it running?",
        "MNT3ERR_NOENT": "the server has no such export",
        "MNT3ERR_ACCES": "the server has no such export, or does not let this machine mount it",
        "No route to host": "the server cannot be reached (no route to host); check its address and the network",
        "timed out": "the server does not answer; check its address and the network",
    }
    return next((hint for sign, hint in hints.items() if sign in text), text)


def _widen_read_ahead(place: Path) -> None:
    """Let the kernel read ahead in several requests at once; its default of 128 KiB makes reading slow."""
    found = mounts.at(place)
    if found is None:
        raise MountError("the mount vanished at once; the bridge must have ended")
    setting = Path("/sys/class/bdi", found.device, "read_ahead_kb")
    try:
        setting.write_text(str(READ_AHEAD_KIB))
    except OSError:
        return  # no right to change it (not root, or /sys read-only): slower, not wrong


if __name__ == "__main__":
    run()
