# SPDX-License-Identifier: GPL-3.0-or-later
"""Several addresses of one export: which of them a machine uses, and whether one answers."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterable
from contextlib import closing

PORT = 2049  # of NFS, unless the mount options have another
ANSWER_SECONDS = 3.0
_TRIES = 2  # one lost packet is no dead server

_PORT_OPTION = re.compile(r"(?:^|,)port=(\d{1,5})(?:,|$)")


def in_turn(sources: Iterable[str], *, host: str, target: str) -> tuple[str, ...]:
    """The sources in the order in which a host tries them: always the same for it, and others for others.

    Each source has a number made of host, target and itself, so that one that is added or taken away moves only those
    hosts that use it (rendezvous hashing).
    """

    def number(source: str) -> bytes:
        return hashlib.sha256(f"{host}\n{target}\n{source}".encode()).digest()

    return tuple(sorted(sources, key=number, reverse=True))


def answers(source: str, options: str) -> bool:
    """Whether the server of `source` takes a connection at the port of NFS; that says nothing about the export."""
    server = source.rpartition(":/")[0].strip("[]")
    found = _PORT_OPTION.search(options)
    address = (server, int(found[1]) if found else PORT)
    return any(_connects(address) for _ in range(_TRIES))


def _connects(address: tuple[str, int]) -> bool:
    try:
        with closing(socket.create_connection(address, timeout=ANSWER_SECONDS)):
            return True
    except OSError:
        return False
