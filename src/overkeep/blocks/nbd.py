# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks behind an NBD socket as source and sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from overkeep.blocks.buffers import ZEROES
from overkeep.blocks.ends import Extent, Piece
from overkeep.blocks.errors import (
    BadRange,
    DiskFailed,
    DiskFull,
    DiskLost,
    DiskReadOnly,
    DiskRefused,
    DiskUnreachable,
    NoChangedBlocks,
)
from overkeep.blocks.extents import Status, dirty_clusters
from overkeep.blocks.nbd_address import parse_url
from overkeep.blocks.nbd_client import Awaited, Client, nbd
from overkeep.blocks.sockets import Sockets
from overkeep.units import GIB, MIB

CONNECT_SECONDS = 20.0
"""How long a connection and its handshake may take; the ninth connection to `qemu-nbd --shared=8` gets no greeting."""

ANOTHER_SECONDS = 5.0
"""The same for one more connection to a disk that is open: a copy goes on with those that it has, and should not wait
long before."""

CONNECTIONS = 5
"""Clones of a disk that work at the same time: with the first they stay below the eight that `qemu-nbd` takes."""

ANSWER_SECONDS = 120.0
"""How long a request may take; storage that is slower for longer counts as lost."""

REQUEST = MIB
"""Bytes of one request at most, but for the first: QEMU takes memory for each, and what is larger than all that it gave
back before is fresh pages each time, which cost more than the data. See decision record 19."""

FIRST = 4 * MIB
"""Bytes of the first long request of a connection at most: by giving its memory back, QEMU learns to keep that of the
requests that follow."""

_STATUS_STEP = GIB  # a server answers for at most 4 GiB; smaller steps keep its answers and the waits short
_ZERO_STEP = 128 * MIB
_NO_SPACE, _NOT_PERMITTED = 28, 1  # error numbers of the protocol


class _Disk:
    """What both ends share: a connection, and the errors of everything that is done with it.

    Whoever gives `sockets` can break off whatever waits for the server, from the first handshake on.
    """

    verb = "use"

    def __init__(
        self, url: str, *, dirty: bool = False, sockets: Sockets | None = None, seconds: float | None = None
    ) -> None:
        self.url = url
        self._sockets = sockets or Sockets()
        self._longest = FIRST
        self._client = self._connect(dirty=dirty, seconds=CONNECT_SECONDS if seconds is None else seconds)

    def _connect(self, *, dirty: bool, seconds: float) -> Any:
        try:
            address, export = parse_url(self.url)
            client = Client(address, export, dirty=dirty, sockets=self._sockets, seconds=seconds)
            client.limit_answers(ANSWER_SECONDS)
        except nbd.OptionError as error:
            raise DiskRefused(verb=self.verb, url=self.url, reason=error.reason) from error
        except TimeoutError as error:
            reason = f"no answer within {seconds:g} s; the server may have all its connections in use"
            raise DiskUnreachable(verb=self.verb, url=self.url, reason=reason) from error
        except (OSError, nbd.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DiskUnreachable(verb=self.verb, url=self.url, reason=reason) from error
        return client

    @property
    def parallel(self) -> int:
        """How many clones may work at the same time."""
        return CONNECTIONS

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return int(self._client.export_size)

    @contextmanager
    def _request(self, offset: int, length: int) -> Iterator[None]:
        try:
            yield
        except nbd.ReplyError as error:
            raise self._failure(error, offset, length) from error
        except nbd.RequestError as error:
            raise DiskFailed(verb=self.verb, url=self.url, offset=offset, length=length, reason=error) from error
        except BlockingIOError as error:
            raise DiskLost(verb=self.verb, url=self.url, reason=f"no answer for {ANSWER_SECONDS:g} s") from error
        except (OSError, nbd.Error) as error:
            raise DiskLost(verb=self.verb, url=self.url, reason=error) from error

    def _each(self, act: Callable[[Sequence[Piece]], Awaited | None], pieces: Sequence[Piece]) -> None:
        if not pieces:
            return
        offset, first = pieces[0]
        with self._request(offset, len(first)):
            failed = act(pieces)
        if failed and failed.error:
            with self._request(failed.command.offset, failed.command.length):
                raise failed.error

    def _requests(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Cut pieces into what one request asks for; the first that is longer than the others is asked for once."""
        requests = []
        for offset, data in pieces:
            at = 0
            while at < len(data):
                request = data[at : at + self._longest]
                requests.append((offset + at, request))
                at += len(request)
                if len(request) > REQUEST:
                    self._longest = REQUEST
        return requests

    def _failure(self, error: Any, offset: int, length: int) -> Exception:
        if error.code == _NO_SPACE:
            return DiskFull(url=self.url)
        if error.code == _NOT_PERMITTED:
            return DiskReadOnly(url=self.url)
        return DiskFailed(verb=self.verb, url=self.url, offset=offset, length=length, reason=error)

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._client.close()


class NbdSource(_Disk):
    """A disk that is read. With `dirty`, the export must tell what changed (one `qemu:dirty-bitmap:` context).

    Raises `DiskUnreachable`, `DiskRefused` and `NoChangedBlocks` at once, `DiskLost` and `DiskFailed` later.
    """

    verb = "read"

    def __init__(
        self, url: str, *, dirty: bool = False, sockets: Sockets | None = None, seconds: float | None = None
    ) -> None:
        super().__init__(url, dirty=dirty, sockets=sockets, seconds=seconds)
        if dirty and self._client.dirty_bitmap is None:
            self.close()
            raise NoChangedBlocks(url=url, reason="it has no dirty bitmap, or more than one")

    @property
    def parallel(self) -> int:
        """How many clones may work at the same time.

        None when the export is for reading only and the server does not say that it takes several connections: QEMU
        always says so then, while releases before 7.1 never do of an export that may be written.
        """
        flags = self._client.transmission_flags
        alone = flags & nbd.FLAG_READ_ONLY and not flags & nbd.FLAG_CAN_MULTI_CONN
        return 0 if alone else CONNECTIONS

    def extents(self, *, dirty: bool) -> Iterator[Extent]:
        """Yield extents of whole 64 KiB clusters: all of them, or those in which anything changed.

        A cluster is zero only when all of it reads as zeroes. Not to be used at the same time as `read_into` of the
        same object: read on a clone.
        """
        if dirty and self._client.dirty_bitmap is None:
            raise NoChangedBlocks(url=self.url, reason="the connection was opened without changed blocks")
        return dirty_clusters(self._statuses(dirty=dirty))

    def _statuses(self, *, dirty: bool) -> Iterator[Status]:
        if not self._client.has_base_allocation:
            if dirty:
                raise NoChangedBlocks(url=self.url, reason="the server does not tell about extents")
            yield Status(self.size, True, False)
            return
        position = 0
        while position < self.size:
            step = min(_STATUS_STEP, self.size - position)
            with self._request(position, step):
                reply = self._client.extents(position, step)
                allocation = [(extent.length, extent.zero) for extent in reply[nbd.BASE_ALLOCATION]]
                changes = [(step, True)]
                if dirty:
                    changes = [(extent.length, extent.dirty) for extent in reply[self._client.dirty_bitmap]]
            for status in _overlaid(changes, allocation, step):
                yield status
                position += status.length

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`."""
        self.read_each([(offset, buffer)])

    def read_each(self, pieces: Sequence[Piece]) -> None:
        """Fill all `pieces`, asked for at once: the server works at one while another is on its way."""
        self._each(self._client.read_each, self._requests(pieces))

    def clone(self) -> NbdSource:
        """Open another connection to the same disk, for reading only."""
        return NbdSource(self.url, sockets=self._sockets, seconds=ANOTHER_SECONDS)


class NbdSink(_Disk):
    """A disk that is written. Raises also `DiskReadOnly` and `DiskFull`."""

    verb = "write"

    def __init__(self, url: str, *, sockets: Sockets | None = None, seconds: float | None = None) -> None:
        super().__init__(url, sockets=sockets, seconds=seconds)
        if self._client.transmission_flags & nbd.FLAG_READ_ONLY:
            self.close()
            raise DiskReadOnly(url=url)
        self._zeroes = bool(self._client.transmission_flags & nbd.FLAG_SEND_WRITE_ZEROES)
        self._clones: list[NbdSink] = []

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`."""
        self.write_each([(offset, data)])

    def write_each(self, pieces: Sequence[Piece]) -> None:
        """Write all `pieces`, sent at once: the server works at one while another is on its way."""
        for offset, data in pieces:
            self._check(offset, len(data))
        self._each(self._client.write_each, self._requests(pieces))

    def zero(self, offset: int, length: int) -> None:
        """Let the server make zeroes, or write them where it cannot."""
        self._check(offset, length)
        step = _ZERO_STEP if self._zeroes else len(ZEROES)
        end = offset + length
        while offset < end:
            count = min(step, end - offset)
            with self._request(offset, count):
                if self._zeroes:
                    self._client.zero(offset, count)
                else:
                    self._client.write(offset, ZEROES[:count])
            offset += count

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self.size:
            raise BadRange(offset=offset, length=length, what="the disk", size=self.size)

    def clone(self) -> NbdSink:
        """Open another connection to the same disk."""
        clone = NbdSink(self.url, sockets=self._sockets, seconds=ANOTHER_SECONDS)
        self._clones.append(clone)
        return clone

    def finish(self) -> None:
        """Make everything durable that any connection to this disk wrote.

        The server says whether one flush is for all connections; else each is asked.
        """
        shared = self._client.transmission_flags & nbd.FLAG_CAN_MULTI_CONN
        for end in (self, *(() if shared else self._clones)):
            end.flush()

    def flush(self) -> None:
        """Make durable what this connection wrote."""
        with self._request(0, self.size):
            self._client.flush()


def _overlaid(changes: list[tuple[int, bool]], allocation: list[tuple[int, bool]], limit: int) -> Iterator[Status]:
    """Lay two lists of `(length, flag)` over one another, as far as both reach and not beyond `limit`."""
    left = limit
    first, second = iter(changes), iter(allocation)
    (change, dirty), (allocated, zero) = next(first), next(second)
    while True:
        length = min(change, allocated, left)
        yield Status(length, dirty, zero)
        change, allocated, left = change - length, allocated - length, left - length
        if not left:
            return
        if not change:
            change, dirty = next(first, (0, False))
        if not allocated:
            allocated, zero = next(second, (0, False))
        if not change or not allocated:
            return
