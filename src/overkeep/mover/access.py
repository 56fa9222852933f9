# SPDX-License-Identifier: GPL-3.0-or-later
"""An access of an order: its ticket checked, its disk opened, and the ticket kept alive while the copy runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from overkeep.blocks.ends import Sink, Source
from overkeep.blocks.errors import NoChangedBlocks
from overkeep.blocks.nbd import NbdSink, NbdSource
from overkeep.blocks.sockets import Sockets
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.mover.imageio import TIMEOUT, Imageio, ImageioUnreachable, Ticket, TicketBroken, TicketCancelled
from overkeep.mover.images import ImagesSink, ImagesSource
from overkeep.mover.orders import masked

SHORTEST, LONGEST = 0.5, 20.0  # seconds between two signs of life

log = logging.getLogger(__name__)


class TicketRefuses(OverkeepError):
    """The ticket does not permit what the order needs."""

    code = "ticket-refuses"
    template = "Ticket {ticket} permits {ops} and the order needs {needed}; start a transfer in the right direction."


def look_up(imageio: Imageio, ticket_id: str, *, op: Literal["read", "write"], dirty: bool) -> Ticket:
    """Return the ticket once it is sure that it permits `op`, with changed blocks if `dirty`.

    When the control service cannot be asked, the images API is: a mover without the right to the control socket works
    on, more slowly. Raises the errors of `Imageio` and of `check`.
    """
    try:
        ticket = imageio.ticket(ticket_id)
    except ImageioUnreachable as error:
        ticket = imageio.ticket_unseen(ticket_id)
        log.warning("images API instead of NBD %s", fields(ticket=masked(ticket_id), reason=repr(str(error))))
    check(ticket, op=op, dirty=dirty)
    return ticket


def check(ticket: Ticket, *, op: Literal["read", "write"], dirty: bool) -> None:
    """Raise a typed error unless `ticket` permits `op`, with changed blocks if `dirty`."""
    if op not in ticket.ops:
        permitted = ", ".join(sorted(ticket.ops)) or "nothing"
        raise TicketRefuses(ticket=masked(ticket.id), ops=permitted, needed=op)
    if dirty and not ticket.dirty:
        raise NoChangedBlocks(url=ticket.url, reason="the Manager opened it for a full backup")


def open_source(imageio: Imageio, ticket: Ticket, *, dirty: bool, sockets: Sockets) -> Source:
    """Open the disk of `ticket` for reading: over NBD if it is there, else through the images API."""
    if _is_nbd(ticket):
        return NbdSource(ticket.url, dirty=dirty, sockets=sockets)
    return ImagesSource(imageio.local, ticket.id, sockets=sockets)


def open_sink(imageio: Imageio, ticket: Ticket, *, sockets: Sockets) -> Sink:
    """Open the disk of `ticket` for writing, as `open_source`."""
    if _is_nbd(ticket):
        return NbdSink(ticket.url, sockets=sockets)
    return ImagesSink(imageio.local, ticket.id, sockets=sockets)


def _is_nbd(ticket: Ticket) -> bool:
    return ticket.url.startswith(("nbd:", "nbd+unix:"))


def interval(inactivity_timeout: float) -> float:
    """Seconds between two signs of life: a third of what the Manager tolerates, within bounds."""
    if inactivity_timeout <= 0:
        return LONGEST
    return min(LONGEST, max(SHORTEST, inactivity_timeout / 3))


@contextmanager
def kept_alive(imageio: Imageio, ticket: Ticket, *, lost: Callable[[OverkeepError], None]) -> Iterator[None]:
    """Touch `ticket` now and regularly until the body ends; call `lost` from a thread when it was taken away.

    A copy goes on while ovirt-imageio is silent: the NBD server is another process, and the Manager decides whether
    the transfer lives. Raises the errors of the first touch (`Imageio.touch`).
    """
    imageio.touch(ticket.id)
    done = threading.Event()
    keeper = threading.Thread(
        target=_keep, args=(imageio, ticket, done, lost), name=f"ticket-{masked(ticket.id)}", daemon=True
    )
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join(TIMEOUT)


def _keep(imageio: Imageio, ticket: Ticket, done: threading.Event, lost: Callable[[OverkeepError], None]) -> None:
    silent = False
    while not done.wait(interval(ticket.inactivity_timeout)):
        try:
            imageio.touch(ticket.id)
            silent = False
        except TicketCancelled as error:
            lost(error)
            return
        except (ImageioUnreachable, TicketBroken) as error:
            if not silent:
                log.warning("ticket not kept alive %s", fields(ticket=masked(ticket.id), reason=repr(str(error))))
            silent = True
