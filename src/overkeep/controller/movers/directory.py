# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the movers are: by the hosts of the Manager, and settings for those that listen elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from overkeep.config import ControllerConfig
from overkeep.engine.api import Engine
from overkeep.errors import NotFound
from overkeep.model.inventory import Host
from overkeep.mover.api import Mover
from overkeep.mover.client import MoverClient


class MoverDirectory:
    """The movers of all hosts (`overkeep.controller.movers.spread.Movers`); connections are kept."""

    def __init__(self, engine: Engine, *, config: ControllerConfig, ca_file: Path, key: Ed25519PrivateKey) -> None:
        self._engine = engine
        self._port = config.mover_port
        self._elsewhere: Mapping[str, str] = {entry.host: entry.url for entry in config.mover}
        self._ca_file = ca_file
        self._key = key
        self._lock = threading.Lock()
        self._hosts: dict[str, Host] = {}
        self._clients: dict[str, MoverClient] = {}

    def at(self, host_id: str) -> Mover:
        """The mover of the host with this id in the Manager."""
        with self._lock:
            known = self._hosts.get(host_id)
        if known is None:
            self.hosts()
        with self._lock:
            known = self._hosts.get(host_id)
            if known is None:
                raise NotFound(kind="host", name=host_id, how="overkeep movers")
            return self._client(known)

    def hosts(self) -> tuple[Host, ...]:
        """The hosts that the Manager has now."""
        hosts = self._engine.hosts()
        with self._lock:
            self._hosts = {host.id: host for host in hosts}
        return hosts

    def url(self, host: Host) -> str:
        """Where the mover of a host listens."""
        address = f"[{host.address}]" if ":" in host.address else host.address
        return self._elsewhere.get(host.name) or f"https://{address}:{self._port}"

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, host: Host) -> MoverClient:
        url = self.url(host)
        if url not in self._clients:
            self._clients[url] = MoverClient(url, ca_file=self._ca_file, signing_key=self._key, host=host.name)
        return self._clients[url]
