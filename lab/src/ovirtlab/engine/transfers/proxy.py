# SPDX-License-Identifier: GPL-3.0-or-later
"""The second ticket of a transfer, at the imageio daemon on the Engine's own address, which passes data on to the host.

Clients of the API can do without it, so that trouble here is an event at most and never ends a transfer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ovirtlab.engine.context import Context
from ovirtlab.engine.records import ImageTransfer
from ovirtlab.host.api import HostError

log = logging.getLogger(__name__)


async def add(context: Context, ticket: Mapping[str, Any], *, url: str) -> bool:
    """Put the host's ticket with the host's address as its backend; False when it was not taken."""
    if context.proxy is None:
        return True
    try:
        await context.proxy.tickets.add({**ticket, "url": url})
    except HostError as error:
        log.info("Ticket %s was not added to the proxy: %s", ticket["uuid"], error)
        return False
    return True


async def extend(context: Context, transfer: ImageTransfer, timeout: int) -> None:
    """Extend the ticket's life along with the host's."""
    if context.proxy is None:
        return
    try:
        await context.proxy.tickets.extend(transfer.ticket_id, timeout)
    except HostError as error:
        log.info("Ticket %s was not extended at the proxy: %s", transfer.ticket_id, error)


async def remove(context: Context, transfer: ImageTransfer) -> None:
    """Take the ticket away; one that stays leads nowhere, as the host has none any more."""
    if context.proxy is None:
        return
    try:
        await context.proxy.tickets.remove(transfer.ticket_id)
    except HostError as error:
        log.info("Ticket %s was not removed from the proxy: %s", transfer.ticket_id, error)
