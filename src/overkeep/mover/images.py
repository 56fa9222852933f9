# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk through the images API of the host's ovirt-imageio: the way for what cannot be opened over NBD.

Slower and dearer for the host than NBD (three times the CPU): every byte goes through the daemon.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

from overkeep.blocks.ends import Extent
from overkeep.blocks.errors import DiskFailed, DiskLost, NoChangedBlocks
from overkeep.blocks.extents import Status, dirty_clusters
from overkeep.blocks.sockets import Sockets
from overkeep.mover.imageio import TicketCancelled, UnixConnection
from overkeep.mover.orders import masked

ANSWER_TIMEOUT = 600.0  # seconds; extents of a large disk are collected before the first byte of the answer
_MOST_JSON = 1 << 30
_OK = (http.client.OK, http.client.PARTIAL_CONTENT)


class _Api:
    """One connection to the local service, for one ticket and one thread."""

    verb = "use"
    parallel = 4  # as ovirt-imageio's own client; the daemon tells of eight at most

    def __init__(self, local: str, ticket_id: str, *, sockets: Sockets | None = None) -> None:
        self._local = local
        self._ticket = ticket_id
        self._sockets = sockets or Sockets()
        self._connection = UnixConnection(local, timeout=ANSWER_TIMEOUT, sockets=self._sockets)

    @property
    def _url(self) -> str:
        return f"imageio:{masked(self._ticket)}"

    def _ask(self, method: str, query: str = "", **sent: Any) -> http.client.HTTPResponse:
        """Send a request and return its answer, whose body must then be read to the end."""
        try:
            self._connection.request(method, f"/images/{self._ticket}{query}", **sent)
            answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise self._lost(error) from error
        if answer.status in _OK:
            return answer
        reason = answer.read(4096).decode(errors="replace").strip().replace(self._ticket, masked(self._ticket))
        self._connection.close()
        if answer.status == http.client.FORBIDDEN:
            raise TicketCancelled(ticket=masked(self._ticket), reason=reason)
        if answer.status == http.client.NOT_FOUND:
            raise NoChangedBlocks(url=self._url, reason=reason)
        raise self._failed(0, 0, f"ovirt-imageio answered {answer.status}: {reason}")

    def _statuses(self, context: str) -> list[Status]:
        answer = self._ask("GET", f"/extents?context={context}")
        try:
            found = json.loads(answer.read(_MOST_JSON))
            return [Status(int(one["length"]), bool(one.get("dirty", True)), bool(one["zero"])) for one in found]
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._failed(0, 0, f"its extents are not understood: {error!r}") from error

    def _lost(self, error: Exception) -> DiskLost:
        return DiskLost(verb=self.verb, url=self._url, reason=str(error) or type(error).__name__)

    def _failed(self, offset: int, length: int, reason: str) -> DiskFailed:
        return DiskFailed(verb=self.verb, url=self._url, offset=offset, length=length, reason=reason)

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._connection.close()


class ImagesSource(_Api):
    """A disk that is read (`overkeep.blocks.ends.Source`). Raises `TicketCancelled` and the errors of disks."""

    verb = "read"

    def __init__(self, local: str, ticket_id: str, *, size: int | None = None, sockets: Sockets | None = None) -> None:
        super().__init__(local, ticket_id, sockets=sockets)
        self.size = sum(status.length for status in self._statuses("zero")) if size is None else size

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield extents of whole clusters, all or those that changed; `NoChangedBlocks`."""
        return dirty_clusters(self._statuses("dirty" if dirty else "zero"))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`; an answer that ends early, as after a cancelled ticket, is an error."""
        end = offset + len(buffer)
        answer = self._ask("GET", headers={"Range": f"bytes={offset}-{end - 1}"})
        done = 0
        try:
            while done < len(buffer) and (count := answer.readinto(buffer[done:])):
                done += count
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        if done < len(buffer):
            self._connection.close()
            raise DiskLost(verb=self.verb, url=self._url, reason=f"{done} of {len(buffer)} bytes came")

    def clone(self) -> ImagesSource:
        """Open another connection to the same disk."""
        return ImagesSource(self._local, self._ticket, size=self.size, sockets=self._sockets)


class ImagesSink(_Api):
    """A disk that is written (`overkeep.blocks.ends.Sink`). Errors as of `ImagesSource`."""

    verb = "write"

    def __init__(self, local: str, ticket_id: str, *, size: int | None = None, sockets: Sockets | None = None) -> None:
        super().__init__(local, ticket_id, sockets=sockets)
        self.size = sum(status.length for status in self._statuses("zero")) if size is None else size

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`."""
        span = f"bytes {offset}-{offset + len(data) - 1}/*"
        headers = {"Content-Range": span, "Content-Length": str(len(data))}
        self._done("PUT", "?flush=n", body=data, headers=headers)

    def zero(self, offset: int, length: int) -> None:
        """Make a run read as zeroes."""
        self._patch(op="zero", offset=offset, size=length, flush=False)

    def clone(self) -> ImagesSink:
        """Open another connection to the same disk."""
        return ImagesSink(self._local, self._ticket, size=self.size, sockets=self._sockets)

    def finish(self) -> None:
        """Make everything durable."""
        self._patch(op="flush")

    def _patch(self, **message: object) -> None:
        self._done("PATCH", body=json.dumps(message).encode(), headers={"Content-Type": "application/json"})

    def _done(self, method: str, query: str = "", **sent: Any) -> None:
        answer = self._ask(method, query, **sent)
        try:
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
