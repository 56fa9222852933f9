# SPDX-License-Identifier: GPL-3.0-or-later
"""What may go wrong between the controller and a mover, before and beside the copying itself."""

from __future__ import annotations

from overkeep.errors import BadRequest, Cancelled, Conflict, OverkeepError


class MoverError(OverkeepError):
    """A mover could not do what was asked, for a reason that this version has no class for."""

    code = "mover-failed"
    template = "The data mover of host {host} answered {code!r}: {detail}"
    status = 502


class MoverUnreachable(OverkeepError):
    """Nobody answers where the mover of a host should be."""

    code = "mover-unreachable"
    template = (
        "The data mover of host {host} does not answer at {url} ({reason}); "
        "start overkeep-mover there and see that its port is open."
    )
    retry = True
    status = 502


class MoverUntrusted(OverkeepError):
    """Somebody answers, without a certificate of the controller's CA."""

    code = "mover-untrusted"
    template = (
        "The data mover of host {host} at {url} shows a certificate that cannot be trusted ({reason}); "
        "give it one that the controller's CA issued for this address."
    )
    status = 502


class MoverBusy(OverkeepError):
    """Too many orders wait already; `seconds` is when to ask again."""

    code = "mover-busy"
    template = "The data mover of host {host} has {waiting} orders waiting; try again in {seconds} seconds."
    retry = True
    status = 429


class MoverStopping(OverkeepError):
    """The mover is being shut down."""

    code = "mover-stopping"
    template = "The data mover of host {host} is being stopped; start it again to go on."
    retry = True
    status = 503


class OrderUnknown(OverkeepError):
    """The mover does not know the order, or has forgotten it."""

    code = "order-unknown"
    template = "The data mover of host {host} knows no order {order}; send the order again."
    status = 404


class OrderDiffers(Conflict):
    """The id is taken by an order with another content."""

    code = "order-differs"
    template = "The id {order} belongs to a different order already; use a new attempt number."


class FencedOff(Conflict):
    """A later attempt at the same sink has been seen."""

    code = "fenced-off"
    template = "The order {order} with fence {fence} comes too late: fence {seen} was seen for {sink}; give it up."


class WrongHost(Conflict):
    """The order is meant for another host."""

    code = "wrong-host"
    template = "The order {order} is for host {meant}, this is {host}; correct the address of the mover of {meant}."


class OrderRefused(Conflict):
    """The order is well formed and cannot be carried out here."""

    code = "order-refused"
    template = "The order {order} is refused: {reason}; {todo}."


class OrderMalformed(BadRequest):
    """The body is not an order of this version."""

    code = "order-malformed"
    template = "The body of order {order} is not an order of version 1: {reason}; correct it."
    status = 422


class BodyTooLarge(BadRequest):
    """The body is larger than any order."""

    code = "body-too-large"
    template = "The body is larger than {limit} bytes; send an order of version 1."
    status = 413


class OrderCancelled(Cancelled):
    """The controller cancelled the order."""

    template = "{what} was cancelled; nothing of it was kept."


class MergeCancelled(OrderCancelled):
    """The controller cancelled a merge, of which nothing is undone."""

    template = "{what} was cancelled; what it has done is kept, and the next merge of the disk goes on with it."


class LeaseExpired(OverkeepError):
    """The controller was silent for too long."""

    code = "lease-expired"
    template = "The controller was not heard of for {lease} seconds, so the copy was stopped; it is tried again."
    retry = True


class MoverRestarted(OverkeepError):
    """The mover ended while the order was not finished."""

    code = "mover-restarted"
    template = "The data mover of host {host} was restarted before the order was finished; it is tried again."
    retry = True


def cancellation(order_id: str, *, kind: str) -> OrderCancelled:
    """What cancelling an order of a kind means for the user."""
    return (MergeCancelled if kind == "merge" else OrderCancelled)(what=f"The order {order_id}")
