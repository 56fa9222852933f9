# SPDX-License-Identifier: GPL-3.0-or-later
"""The two local services of a host's ovirt-imageio that a mover needs: tickets, and signs of life for a ticket."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass

from overkeep.blocks.sockets import Sockets
from overkeep.errors import OverkeepError
from overkeep.mover.orders import masked

TIMEOUT = 10.0  # seconds for one call; both services are on this host


class ImageioUnreachable(OverkeepError):
    """ovirt-imageio does not answer on a local socket."""

    code = "imageio-unreachable"
    template = (
        "ovirt-imageio does not answer at {socket} ({reason}); start it, and let the mover's user open that socket "
        "(user vdsm may) or correct `{setting}` in the mover's settings."
    )
    retry = True


class TicketUnknown(OverkeepError):
    """ovirt-imageio has no such ticket: the transfer has ended, or the daemon was restarted."""

    code = "ticket-unknown"
    template = "ovirt-imageio on this host has no ticket {ticket}; its transfer has ended, start a new one."
    retry = True  # a new transfer in the same backup cures it, after a restart of the daemon for instance


class TicketCancelled(OverkeepError):
    """The ticket was taken away while it was used."""

    code = "ticket-cancelled"
    template = "The Manager ended the transfer of ticket {ticket} during the copy ({reason}); start a new transfer."
    retry = True


class TicketBroken(OverkeepError):
    """ovirt-imageio cannot open what the ticket leads to."""

    code = "ticket-broken"
    template = (
        "ovirt-imageio cannot open the disk of ticket {ticket} (it answered {status}): the disk's NBD server has "
        "ended; start a new backup or transfer, and look in the log of ovirt-imageio."
    )
    retry = True


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What the Manager permits with a ticket; `size` in bytes, `inactivity_timeout` in seconds, 0 for none."""

    id: str
    url: str
    ops: frozenset[str]
    size: int
    dirty: bool
    inactivity_timeout: float


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; a connection that was closed is opened again by the next request.

    `sockets` can break it off from another thread.
    """

    def __init__(self, address: str, *, timeout: float = TIMEOUT, sockets: Sockets | None = None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._address = address
        self._sockets = sockets or Sockets()

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)
        self._sockets.add(self.sock)

    def close(self) -> None:
        """Close the connection; may be called twice."""
        if self.sock is not None:
            self._sockets.remove(self.sock)
        super().close()


class Imageio:
    """ovirt-imageio of this host.

    `control` and `local` are paths, or names of abstract sockets that begin with a zero byte or with the two
    characters `\\0`, as ovirt-imageio's own settings write them. Each call uses a connection of its own: an open one
    would hold a connection of the NBD server and delay the removal of the ticket.
    """

    def __init__(self, *, control: str, local: str, sockets: Sockets | None = None) -> None:
        self._control = _address(control)
        self._local = _address(local)
        self._sockets = sockets

    def over(self, sockets: Sockets) -> Imageio:
        """The same, with calls that `sockets` can break off."""
        return Imageio(control=self._control, local=self._local, sockets=sockets)

    @property
    def local(self) -> str:
        """Address of the images API, as `UnixConnection` takes it."""
        return self._local

    def ticket(self, ticket_id: str) -> Ticket:
        """Look a ticket up; `TicketUnknown`, `ImageioUnreachable`."""
        status, body = self._call("GET", f"/tickets/{ticket_id}", control=True)
        if status == http.client.NOT_FOUND:
            raise TicketUnknown(ticket=masked(ticket_id))
        if status != http.client.OK:
            raise self._unreachable(f"it answered {status}", control=True)
        try:
            answer = json.loads(body)
            if answer.get("canceled"):
                raise TicketCancelled(ticket=masked(ticket_id), reason="it is being removed")
            return _ticket(ticket_id, answer)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._unreachable(f"its answer is not a ticket: {error!r}", control=True) from error

    def ticket_unseen(self, ticket_id: str) -> Ticket:
        """Make out what a ticket permits without the control service, by what the images API offers for it.

        Its URL stays unknown, as does whether it knows changed blocks: asking for them tells. Errors as of `touch`.
        """
        try:
            features = json.loads(self._options(ticket_id)).get("features", [])
            op = "write" if "zero" in features else "read"
        except (AttributeError, TypeError, ValueError) as error:
            raise self._unreachable(f"its answer is not understood: {error!r}", control=False) from error
        return Ticket(id=ticket_id, url="images:", ops=frozenset({op}), size=0, dirty=True, inactivity_timeout=0)

    def touch(self, ticket_id: str) -> None:
        """Show that the ticket is in use; `TicketCancelled`, `TicketBroken`, `ImageioUnreachable`."""
        self._options(ticket_id)

    def _options(self, ticket_id: str) -> bytes:
        status, body = self._call("OPTIONS", f"/images/{ticket_id}", control=False)
        if status == http.client.FORBIDDEN:
            raise TicketCancelled(ticket=masked(ticket_id), reason=_reason(body, ticket_id))
        if status != http.client.OK:
            raise TicketBroken(ticket=masked(ticket_id), status=status)
        return body

    def _call(self, method: str, path: str, *, control: bool) -> tuple[int, bytes]:
        connection = UnixConnection(self._control if control else self._local, sockets=self._sockets)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(str(error) or type(error).__name__, control=control) from error
        finally:
            connection.close()

    def _unreachable(self, reason: str, *, control: bool) -> ImageioUnreachable:
        address = self._control if control else self._local
        setting = "imageio_control_socket" if control else "imageio_local_socket"
        return ImageioUnreachable(socket=address.replace("\0", "\\0"), reason=reason, setting=setting)


def _reason(body: bytes, ticket_id: str) -> str:
    return body.decode(errors="replace").strip().replace(ticket_id, masked(ticket_id))


def _address(text: str) -> str:
    return "\0" + text[2:] if text.startswith("\\0") else text


def _ticket(ticket_id: str, answer: dict[str, object]) -> Ticket:
    ops, size, timeout = answer["ops"], answer["size"], answer["inactivity_timeout"]
    if not (isinstance(ops, list) and isinstance(size, int) and isinstance(timeout, int | float)):
        raise TypeError("a field is of the wrong type")
    return Ticket(
        id=ticket_id,
        url=str(answer["url"]),
        ops=frozenset(str(op) for op in ops),
        size=size,
        dirty=answer.get("dirty") is True,
        inactivity_timeout=float(timeout),
    )
