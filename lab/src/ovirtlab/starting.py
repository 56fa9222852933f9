# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a lab in the background and returns when it is ready, or cleans up and says why it did not start."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovirtlab import environment as environments
from ovirtlab import facts, teardown
from ovirtlab.ledger import LAB_VARIABLE, Ledger
from ovirtlab.places import Places, default_cache
from ovirtlab.remote import LabError

START_LIMIT = 600.0  # the first start on a machine also makes the guest's images and saved states
# the longest socket below the directory: h/<host>/nbd/<uuid>.sock, with 107 bytes in all (unix(7))
LONGEST_DIRECTORY = 107 - len("/h//nbd/.sock") - 36


class Refused(LabError):
    """Nothing was started, and nothing of what is there was touched."""


Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to start, as asked for on the command line; None is the default of each."""

    environment: Path | None = None
    hosts: int | None = None
    vms: int | None = None
    cache: Path | None = None


def start(directory: Path, wanted: Wanted, *, say: Say) -> dict[str, Any]:
    """Start a lab; return what is in its `lab.json`. Raises `LabError`; then nothing is left but the log's text."""
    places = Places(directory.resolve())
    _check(places, wanted)
    try:
        process, events = _begin(places, wanted, say)
        with os.fdopen(events, "rb", buffering=0):
            _follow(process, events, say)
    except BaseException as error:
        if isinstance(error, Refused):
            raise
        tail = _log_tail(places)
        teardown.tear_down(places.directory)
        if isinstance(error, LabError):
            raise LabError(f"{error}{tail}") from error
        raise
    document = facts.read(places.facts)
    if document is None:
        raise LabError(f"The lab in {places.directory} ended just after its start; start it again.")
    return document


def _check(places: Places, wanted: Wanted) -> None:
    """Refuse what cannot work before anything is made."""
    _refuse_second(places)
    for name, count in (("--hosts", wanted.hosts), ("--vms", wanted.vms)):
        if count is not None and count < (1 if name == "--hosts" else 0):
            raise LabError(f"{name} {count} makes no lab; give a larger number.")
    try:
        chosen = environments.load(wanted.environment) if wanted.environment else environments.default()
    except environments.BadEnvironment as error:
        raise LabError(str(error)) from error
    scaled = environments.scaled(chosen, hosts=wanted.hosts, vms=wanted.vms)
    longest = max(len(host.name) for host in scaled.hosts)
    if len(str(places.directory)) + longest > LONGEST_DIRECTORY:
        limit = LONGEST_DIRECTORY - longest
        raise LabError(
            f"{places.directory} is too long for the unix sockets in it; give a --dir of at most {limit} characters."
        )


def _begin(places: Places, wanted: Wanted, say: Say) -> tuple[subprocess.Popen[bytes], int]:
    """Clean the directory and start the supervisor; return it with the descriptor its events come from."""
    directory = places.directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise Refused(f"{directory} belongs to somebody else; choose another place with --dir.")
    if not Ledger(directory).exists and any(directory.iterdir()):
        raise Refused(f"{directory} is not empty and holds no lab; choose a new or empty directory with --dir.")
    directory.chmod(0o700)
    with teardown.locked(directory) as there:
        if not there:
            raise Refused(f"{directory} was removed by another command just now; try again.")
        _refuse_second(places)
        try:
            left = teardown.clean(places)
        except teardown.TeardownError as error:
            raise Refused(f"What a crashed lab left in {directory} could not be removed: {error}.") from error
        if left:
            say(f"removed what a crashed lab had left: {len(left)} things")
        return _spawn(places, wanted)


def _refuse_second(places: Places) -> None:
    pid = teardown.supervisor_pid(places)
    if pid is not None:
        raise Refused(
            f"A lab is up in {places.directory} already (process {pid}); "
            f"use it, or end it with `ovirtlab down --dir {places.directory}`."
        )


def _spawn(places: Places, wanted: Wanted) -> tuple[subprocess.Popen[bytes], int]:
    ledger = Ledger(places.directory)
    ledger.record("directory", places.directory)
    reader, writer = os.pipe()
    try:
        with places.log.open("ab") as log:
            process = subprocess.Popen(
                _command(places, wanted, writer),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[writer],
                env=os.environ | {LAB_VARIABLE: ledger.lab_id},
                cwd="/",
            )
        ledger.record_process(process.pid, kind="supervisor")
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return process, reader


def _command(places: Places, wanted: Wanted, status: int) -> list[str]:
    command = [sys.executable, "-m", "ovirtlab.supervisor", "--dir", str(places.directory)]
    command += ["--cache", str((wanted.cache or default_cache()).resolve()), "--status-fd", str(status)]
    if wanted.environment:
        command += ["--environment", str(wanted.environment.resolve())]
    for name, count in (("--hosts", wanted.hosts), ("--vms", wanted.vms)):
        command += [] if count is None else [name, str(count)]
    return command


def _follow(process: subprocess.Popen[bytes], events: int, say: Say) -> None:
    """Pass on the steps of starting until the lab is ready; raise `LabError` when it fails or takes too long."""
    deadline = time.monotonic() + START_LIMIT
    for line in _lines(events, deadline):
        event, _, text = line.partition(" ")
        if event == "ready":
            return
        if event == "failed":
            process.wait(60)
            raise LabError(f"The lab did not start: {text}")
        seconds, _, name = text.partition(" ")
        say(f"{seconds:>6} s  {name}")
    if time.monotonic() >= deadline:
        raise LabError(f"The lab did not start within {START_LIMIT:g} s.")
    status = process.wait(60)
    cause = "it was ended while it was starting" if status == 0 else f"its supervisor ended with status {status}"
    raise LabError(f"The lab did not start: {cause}.")


def _lines(descriptor: int, deadline: float) -> Iterator[str]:
    rest = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([descriptor], [], [], left)
        content = os.read(descriptor, 4096) if ready else b""
        if not content:
            return
        *lines, rest = (rest + content).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def _log_tail(places: Places) -> str:
    text = places.log.read_text(errors="replace") if places.log.exists() else ""
    lines = text.rstrip().splitlines()[-12:]
    return "".join(f"\n  | {line}" for line in lines)
