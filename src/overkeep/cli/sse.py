# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading server-sent events, as the HTML standard has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message; `kind` is `message` when it has none. `number` is that of the last one that had one."""

    kind: str
    data: str
    number: str


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages of a stream. What is not finished when the stream ends is none; comments are left out."""
    kind, data, number = "", [], ""  # type: str, list[str], str
    for line in lines:
        if not line:
            if data:
                yield Message(kind=kind or "message", data="\n".join(data), number=number)
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            number = value
