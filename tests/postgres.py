"""A real PostgreSQL for tests: Debian's programs, under an unprivileged user, on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

_USER = "overkeep"


class Postgres:
    """A server; `new_database` gives a data base of its own to each test."""

    def __init__(self, port: int) -> None:
        self.port = port

    def new_database(self) -> str:
        """A new, empty data base, as a URL without a driver."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}"


def driver(url: str) -> str:
    """The URL as our own tables want it."""
    return url.replace("postgresql://", "postgresql+psycopg://")


@contextmanager
def serving(folder: Path) -> Iterator[Postgres]:
    """Run a server whose files are in `folder`, which must lie where everybody may pass."""
    programs = _programs()
    owner = _unprivileged()
    data = folder / "pg"
    data.mkdir()
    if owner:
        shutil.chown(data, owner)
    run: dict[str, Any] = {"user": owner, "cwd": data, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
    command = [
        str(programs / "initdb"),
        "-D",
        str(data / "base"),
        "-U",
        _USER,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120, **run)
    port = _free_port()
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(data), "-c", "fsync=off", "-c", "max_connections=200"]
    with (folder / "pg.log").open("wb") as log:
        command = [str(programs / "postgres"), "-D", str(data / "base"), *options]
        server: subprocess.Popen[bytes] = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, **run
        )
    try:
        found = Postgres(port)
        _await(found, server, folder / "pg.log")
        yield found
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nobody wants its data
        server.wait(90)


def _await(found: Postgres, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(found._url("postgres"), connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (setup/debian-packages.txt)")
    return found[-1].parent


def _unprivileged() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    return next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
