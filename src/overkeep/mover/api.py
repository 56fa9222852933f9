# SPDX-License-Identifier: GPL-3.0-or-later
"""The port to a mover: what the controller may ask of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from overkeep.model.findings import Finding
from overkeep.model.probes import Probe, Terms
from overkeep.mover.orders import Order, OrderStatus

LONGEST_WAIT = 25.0  # seconds a long poll may last; shorter than the idle limits of proxies and firewalls


@dataclass(frozen=True, kw_only=True)
class Load:
    """How many orders run and wait, and how many may run at once."""

    at_once: int
    running: int
    waiting: int

    def share(self, *, more: int = 0) -> float:
        """All orders, with `more` to come, as a part of those that may run at once."""
        return (self.running + self.waiting + more) / self.at_once


@dataclass(frozen=True, kw_only=True)
class Health:
    """Who answers, what time it is there (seconds since 1970), and what there is to do; older movers say less."""

    version: str
    host: str
    time: float | None = None
    load: Load | None = None


class Mover(Protocol):
    """One mover. All calls raise `MoverUnreachable` and `MoverUntrusted`; ids are those of `orders.OrderId`."""

    host: str

    def put(self, order_id: str, order: Order) -> OrderStatus:
        """Give an order; repeating it returns its present status.

        Raises `OrderDiffers`, `FencedOff`, `WrongHost`, `OrderRefused`, `MoverBusy` or `MoverStopping`.
        """

    def wait(self, order_id: str, *, after: int, timeout: float = LONGEST_WAIT) -> OrderStatus:
        """Return the status once its `seq` is above `after`, or after `timeout` seconds; renews the lease.

        Raises `OrderUnknown`.
        """

    def cancel(self, order_id: str, *, timeout: float = 60) -> OrderStatus:
        """Stop an order and return its status once the work has stopped, or after `timeout` seconds.

        Raises `OrderUnknown`.
        """

    def orders(self) -> tuple[OrderStatus, ...]:
        """Everything the mover still knows, oldest first."""

    def health(self) -> Health:
        """Who answers."""

    def check(self) -> tuple[Finding, ...]:
        """What the mover finds when it looks at its host: ovirt-imageio, its targets, its certificate."""

    def probe(self, target: str, terms: Terms, *, repository: str) -> Probe:
        """Let the mover try a target out that should hold `repository` (an id, or nothing when that is not known).

        Raises `NotFound` for a target that the mover has not, `ProbeSilent`, and what the target raises there.
        """

    def close(self) -> None:
        """Release connections; may be called twice."""
