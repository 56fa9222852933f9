# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to an NBD server; the only module that knows the NBD client of ovirt-imageio.

The client waits for each answer before it asks again. Scattered clusters are read several times as fast when the server
has the next requests already, so commands can be sent together here. See the NBD protocol, "Transmission phase".
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Sequence
from typing import Any

from ovirt_imageio._internal import nbd

from overkeep.blocks.ends import Piece
from overkeep.blocks.sockets import Sockets

__all__ = ["Awaited", "Client", "nbd"]

logging.getLogger("nbd").setLevel(logging.ERROR)  # what it warns of is an error of ours with a sentence, or harmless


class Client(nbd.Client):  # type: ignore[misc] # the client has no types
    """The client with limits in time, for the handshake and for each answer, that can be interrupted in both.

    Connecting and the handshake may take `seconds`. Several commands may be on their way at once (`exchange`).
    """

    def __init__(self, address: Any, export: str, *, dirty: bool, sockets: Sockets, seconds: float) -> None:
        self._sockets = sockets
        self._seconds = seconds
        super().__init__(address, export, dirty=dirty)

    def _create_unix_connection(self, address: Any) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._seconds)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        self._sockets.add(sock)
        return sock

    def _create_tcp_connection(self, address: Any) -> socket.socket:
        failure = OSError("the host has no address")
        host, port = address
        for family, kind, protocol, _, found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                return self._connect_tcp(socket.socket(family, kind, protocol), found)
            except OSError as error:
                failure = error
        raise failure

    def _connect_tcp(self, sock: socket.socket, address: Any) -> socket.socket:
        self._sockets.add(sock)  # an interrupt ends the wait for a host that does not answer
        try:
            sock.settimeout(self._seconds)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self._sockets.remove(sock)
            sock.close()
            raise
        self._sockets.add(sock)  # once more: an interrupt before it was connected broke nothing
        return sock

    def _close_socket(self) -> None:
        self._sockets.remove(self._sock)
        super()._close_socket()

    def limit_answers(self, seconds: float) -> None:
        """Let the kernel keep the time: a socket with a time-out of Python's costs one more call for each read."""
        self._sock.settimeout(None)
        limit = struct.pack("@ll", int(seconds), 0)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def _recv_into(self, buf: Any) -> None:
        with memoryview(buf) as view:
            position = 0
            while position < len(view):
                count = self._sock.recv_into(view[position:], 0, socket.MSG_WAITALL)
                if not count:
                    raise nbd.ProtocolError("the server closed the connection")
                position += count

    def read_each(self, pieces: Sequence[Piece]) -> Awaited | None:
        """Fill all `pieces`; see `exchange`."""
        structured = self._structured_reply
        commands = [nbd.Read(self._next_handle(), at, buffer, only_structured=structured) for at, buffer in pieces]
        return self.exchange(commands)

    def write_each(self, pieces: Sequence[Piece]) -> Awaited | None:
        """Write all `pieces`; see `exchange`."""
        commands = [nbd.Write(self._next_handle(), at, len(data)) for at, data in pieces]
        return self.exchange(commands, [data for _, data in pieces])

    def exchange(self, commands: Sequence[Any], payloads: Sequence[memoryview] = ()) -> Awaited | None:
        """Send commands at once, each with its payload, and take the answers in the order in which they come.

        Return what the server failed first: the connection is still good. Raises what ends the connection.
        """
        if payloads:
            for command, payload in zip(commands, payloads, strict=True):
                self._send_both(command.to_bytes(), payload)
        else:
            self._send(b"".join(command.to_bytes() for command in commands))
        waiting = {command.handle: Awaited(command) for command in commands}
        failed: Awaited | None = None
        while waiting:
            answer = self._take_answer(waiting)
            if answer.error and not failed:
                failed = answer
        return failed

    def _send_both(self, head: bytes, payload: memoryview) -> None:
        sent = self._sock.sendmsg((head, payload))
        if sent < len(head):
            self._send(head[sent:])
        self._send(payload[max(0, sent - len(head)) :])

    def _take_answer(self, waiting: dict[int, Awaited]) -> Awaited:
        """Take the next part of an answer; what is answered in full waits no longer."""
        (magic,) = self._recv_fmt("!I")
        if magic == nbd.STRUCTURED_REPLY_MAGIC and self._structured_reply:
            flags, kind, handle, length = self._recv_fmt("!HHQI")
            answer = _answering(waiting, handle, whole=bool(flags & nbd.REPLY_FLAG_DONE))
            self._take_chunk(answer, kind, flags, length)
        elif magic == nbd.SIMPLE_REPLY_MAGIC:
            code, handle = self._recv_fmt("!IQ")
            answer = _answering(waiting, handle, whole=True)
            if code:
                answer.error = nbd.ReplyError(code, "the server refused")
            elif answer.missing:
                self._recv_into(answer.part(answer.command.offset, answer.missing))
        else:
            raise nbd.ProtocolError(f"the server sent {magic:x} where an answer begins")
        if handle not in waiting and answer.missing and not answer.error:
            raise nbd.ProtocolError(f"the server left {answer.missing} bytes out")
        return answer

    def _take_chunk(self, answer: Awaited, kind: int, flags: int, length: int) -> None:
        if kind == nbd.REPLY_TYPE_OFFSET_DATA:
            (offset,) = self._recv_fmt("!Q")
            self._recv_into(answer.part(offset, length - 8))
        elif kind == nbd.REPLY_TYPE_OFFSET_HOLE:
            offset, hole = self._recv_fmt("!QI")
            part = answer.part(offset, hole)
            part[:] = bytes(hole)
        elif kind == nbd.REPLY_TYPE_ERROR:
            try:
                self._handle_error_chunk(length, flags)
            except nbd.ReplyError as error:
                answer.error = error
        elif kind == nbd.REPLY_TYPE_ERROR_OFFSET:
            self._handle_error_offset_chunk(length, answer.command)
            answer.error = answer.command.errors[-1][1]
        elif kind == nbd.REPLY_TYPE_NONE:
            self._handle_none_chunk(flags, length)
        else:
            raise nbd.ProtocolError(f"the server sent a chunk of type {kind} with {length} bytes")


class Awaited:
    """A command and what of its answer is still `missing`, in bytes."""

    def __init__(self, command: Any) -> None:
        self.command = command
        self.missing = len(command.buf) if command.buf is not None else 0
        self.error: Exception | None = None

    def part(self, offset: int, length: int) -> memoryview:
        """The memory for a part of what is read, which must not have come before."""
        start = offset - self.command.offset
        if start < 0 or not 0 < length <= self.missing or start + length > self.command.length:
            raise nbd.ProtocolError(f"the server sent {length} bytes at {offset} that were not asked for")
        self.missing -= length
        view: memoryview = self.command.buf[start : start + length]
        return view


def _answering(waiting: dict[int, Awaited], handle: int, *, whole: bool) -> Awaited:
    """What an answer is for, which no longer waits when this is the `whole` of it."""
    if handle not in waiting:
        raise nbd.ProtocolError(f"the server answers a command, {handle}, that was not sent")
    return waiting.pop(handle) if whole else waiting[handle]
