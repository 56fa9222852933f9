"""The Manager and the mover in memory of one process, used by controllers in others: as the real ones are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from overkeep.errors import OverkeepError


def serve(address: Path, objects: dict[str, Any]) -> Callable[[], None]:
    """Serve objects at a socket, each connection by a thread of its own; returns what ends that."""
    listener = Listener(str(address), family="AF_UNIX")

    def accept() -> None:
        while True:
            try:
                connection = listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=_answer, args=(connection, objects), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.close


def _answer(connection: Connection, objects: dict[str, Any]) -> None:
    with connection:
        while True:
            try:
                name, method, args, kwargs = connection.recv()
                connection.send(_call(getattr(objects[name], method), args, kwargs))
            except (EOFError, OSError):  # the controller died
                return


def _call(found: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What a call gave. Errors cross as their class and fields, for they take nothing but fields."""
    if not callable(found):
        return ("value", found)
    try:
        return ("value", found(*args, **kwargs))
    except OverkeepError as error:
        return ("error", type(error), error.fields)


class Remote:
    """An object of the other process. `values` are its attributes that are no methods."""

    def __init__(self, address: Path, name: str, *, values: tuple[str, ...] = ()) -> None:
        self._address = address
        self._name = name
        self._values = values
        self._mine = threading.local()  # a connection carries one call at a time

    def __getattr__(self, method: str) -> Any:
        if method in self._values:
            return self._ask(method)
        return lambda *args, **kwargs: self._ask(method, *args, **kwargs)

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = Client(str(self._address), family="AF_UNIX")
        self._mine.connection.send((self._name, method, args, kwargs))
        kind, *found = self._mine.connection.recv()
        if kind == "error":
            raise found[0](**found[1])
        return found[0]
