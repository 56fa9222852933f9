# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's configuration with all times that it keeps, and the pace at which its commands are polled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal

MINUTE = 60.0

_KEY = "time"


@dataclass(frozen=True, kw_only=True)
class Time:
    """What is known of a setting that is a time.

    `option` is what a real engine, or another program named in `place`, calls it; there it is in `unit` seconds.
    `clock` tells whose seconds they are: those of the engine, which `time_scale` makes shorter, or real ones.
    """

    governs: str
    option: str = ""
    place: Literal["engine-config", "ovirt-engine.conf", "vdsm.conf"] = "engine-config"
    unit: float = 1.0
    clock: Literal["engine", "real", "both"] = "engine"


def _time(default: float, governs: str, **facts: Any) -> Any:
    return field(default=default, metadata={_KEY: Time(governs=governs, **facts)})


def _minutes(count: float, governs: str, option: str) -> Any:
    return _time(count * MINUTE, governs, option=option, unit=MINUTE)


@dataclass(kw_only=True)
class Settings:
    """What `engine-config` would hold; all times in seconds.

    The daemon on a host keeps real time at any scale of the engine's clock: `ticket_lifetime` is what a ticket is
    given, and idle times are compared as the daemon tells them, so that a fast clock does not cut off clients that are
    not fast. What has no option in an engine takes as long there as hosts need for it; the lab's need no time.
    """

    use_hybrid_backup: bool = True  # at level 4.7 and later
    poll_first: float = _time(
        1.0,
        "how soon the engine first looks at a backup or transfer that has begun",
        option="AsyncCommandPollingLoopInSeconds",
    )
    poll_longest: float = _time(
        10.0,
        "the longest wait between two looks; each is twice as long as the one before",
        option="AsyncCommandPollingRateInSeconds",
    )
    ticket_lifetime: int = _time(
        300,
        "life of a transfer's ticket: real seconds at the daemon, and the engine's for when it is due to be extended",
        option="ImageTransferHostTicketValidityInSeconds",
        clock="both",
    )
    ticket_refresh_allowance: int = _time(
        240,
        "a ticket is extended when the engine thinks it has less than this left",
        option="ImageTransferHostTicketRefreshAllowanceInSeconds",
    )
    client_inactivity_timeout: int = _time(
        60,
        "a transfer that the daemon has seen idle for longer is paused or cancelled; a transfer may have its own",
        option="TransferImageClientInactivityTimeoutInSeconds",
        clock="real",
    )
    succeeded_backup_cleanup: float = _minutes(
        15, "how long a backup that succeeded can still be read", "SucceededBackupCleanupTimeInMinutes"
    )
    failed_backup_cleanup: float = _minutes(
        30, "how long a backup that failed can still be read", "FailedBackupCleanupTimeInMinutes"
    )
    succeeded_transfer_cleanup: float = _minutes(
        15, "how long a transfer that succeeded can still be read", "SucceededImageTransferCleanupTimeInMinutes"
    )
    failed_transfer_cleanup: float = _minutes(
        30, "how long a transfer that failed can still be read", "FailedImageTransferCleanupTimeInMinutes"
    )
    cleanup_rate: float = _minutes(
        10, "how often finished backups and transfers are looked through", "DbEntitiesCleanupRateInMinutes"
    )
    migration_progress_timeout: float = _time(
        2.5 * MINUTE,
        "a migration that gets no further for so long is given up",
        option="migration_progress_timeout",
        place="vdsm.conf",
    )
    session_idle_limit: float = _minutes(
        30, "a login that nobody uses for so long ends; `Session-TTL` gives one its own", "UserSessionTimeOutInterval"
    )
    token_lifetime: float = _time(
        360_000, "life of a login, used or not", option="SSO_TOKEN_TIMEOUT", place="ovirt-engine.conf"
    )
    login_patience: float = _time(300.0, "how long a login form, and the code that it ends in, can be used")
    console_ticket_lifetime: int = _time(7200, "what the ticket of a console is said to be good for", clock="real")
    host_refresh: float = _time(
        3.0, "how often a host on its way into maintenance is looked at", option="VdsRefreshRate"
    )
    host_activation: float = _time(2.0, "from `activate` until a host is up")
    host_installation: float = _time(5.0, "how long `install` and `upgrade` keep a host `installing`")
    host_update_check: float = _time(2.0, "how long a host takes to look for updates")
    host_reboot: float = _time(10.0, "how long a host is away when it is rebooted after an upgrade")
    domain_change: float = _time(2.0, "how long a storage domain takes to be activated or deactivated")
    vm_start: float = _time(1.0, "from powering up, or a restored state, until a VM is up")
    vm_import: float = _time(1.0, "how long a VM made from a configuration stays locked")
    proxy_port: int = 54323
    outdated_hosts: frozenset[str] = frozenset()  # ids of hosts too old for checkpoints and scratch disks
    hosts_without_backup: frozenset[str] = frozenset()  # ids of hosts whose libvirt has no backup


def times() -> Iterator[tuple[str, float, Time]]:
    """All settings that are times, with their defaults and what is known of them."""
    for setting in fields(Settings):
        if _KEY in setting.metadata:
            yield setting.name, getattr(Settings, setting.name), setting.metadata[_KEY]


def engine_config(settings: Settings) -> dict[str, str]:
    """The times that `engine-config` knows, by their names there, as it would give them."""
    known = {time.option: (name, time.unit) for name, _, time in times() if time.place == "engine-config"}
    return {option: str(int(getattr(settings, name) / unit)) for option, (name, unit) in known.items() if option}


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
