# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's configuration for backups and transfers, and the pace at which its commands are polled."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60.0


@dataclass(kw_only=True)
class Settings:
    """What `engine-config` would hold; all times in seconds of the engine's clock.

    The daemon on a host keeps real time at any scale of that clock: `ticket_lifetime` is what a ticket is given, and
    idle times are compared as the daemon tells them, so that a fast clock does not cut off clients that are not fast.
    """

    use_hybrid_backup: bool = True  # at level 4.7 and later
    poll_first: float = 1.0
    poll_longest: float = 10.0
    ticket_lifetime: int = 300
    ticket_refresh_allowance: int = 240
    client_inactivity_timeout: int = 60
    succeeded_backup_cleanup: float = 15 * MINUTE
    failed_backup_cleanup: float = 30 * MINUTE
    succeeded_transfer_cleanup: float = 15 * MINUTE
    failed_transfer_cleanup: float = 30 * MINUTE
    cleanup_rate: float = 10 * MINUTE
    migration_progress_timeout: float = 2.5 * MINUTE
    proxy_port: int = 54323
    session_idle_limit: float = 30 * MINUTE
    outdated_hosts: frozenset[str] = frozenset()  # ids of hosts too old for checkpoints and scratch disks
    hosts_without_backup: frozenset[str] = frozenset()  # ids of hosts whose libvirt has no backup


class Pace:
    """Delays between the polls of one command: they double up to a longest one, as the engine's callbacks do."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._delay = settings.poll_first

    def next(self) -> float:
        """The delay to wait now."""
        delay = self._delay
        self._delay = min(delay * 2, self._settings.poll_longest)
        return delay

    def restart(self) -> None:
        """Begin again with the shortest delay, as when the command's status changed."""
        self._delay = self._settings.poll_first
