# SPDX-License-Identifier: GPL-3.0-or-later
"""Long lists in pages: an opaque cursor, and the address of the next page in a `Link` header (RFC 8288)."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response
from pydantic import AwareDatetime, TypeAdapter

from overkeep.errors import BadRequest

Since = Annotated[AwareDatetime | None, Query(description="From this time on")]
Until = Annotated[AwareDatetime | None, Query(description="Before this time")]

LARGEST = 1000
USUAL = 100
_BATCH = LARGEST + 1  # rows that are read at once: the largest page, and whether there is more
_MOST_READ = 5000  # rows that one call reads for a caller who may see few of them
MOST_PARTS = 1500  # of the items of a page; one item may have more
_Item = TypeVar("_Item")


class BadCursor(BadRequest):
    """A cursor is not of this list."""

    code = "bad-cursor"
    template = "The cursor is not one that this list gave for these filters; leave it away to begin anew."

    def __init__(self) -> None:
        super().__init__()


@dataclass(frozen=True, kw_only=True)
class Paging:
    """Which page is asked for. A cursor holds for the path and the filters that it was given for."""

    request: Request
    response: Response
    limit: int
    cursor: str | None

    @property
    def after(self) -> list[Any] | None:
        """The key of the last item of the page before; raise `BadCursor`."""
        if self.cursor is None:
            return None
        try:
            scope, *key = json.loads(base64.urlsafe_b64decode(self.cursor.encode("ascii", "strict") + b"=="))
        except (ValueError, TypeError, UnicodeError, binascii.Error) as error:
            raise BadCursor from error
        if scope != self._scope() or not key:
            raise BadCursor
        return list(key)

    def go_on_after(self, *key: str | int) -> None:
        """Say that there is more, after the item with this key."""
        text = json.dumps([self._scope(), *key], separators=(",", ":"))
        cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        query = urlencode([*self._filters(), ("limit", self.limit), ("cursor", cursor)])
        self.response.headers["Link"] = f'<{self.request.url.path}?{query}>; rel="next"'

    def _filters(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.request.query_params.multi_items() if name not in _OWN]

    def _scope(self) -> str:
        asked = json.dumps([self.request.url.path, sorted(self._filters())])
        return hashlib.blake2b(asked.encode(), digest_size=6).hexdigest()


_OWN = ("limit", "cursor")


def paging(
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=LARGEST, description="How many items at most")] = USUAL,
    cursor: Annotated[
        str | None, Query(max_length=1000, description="Where to go on: as the `Link` of the page before has it")
    ] = None,
) -> Paging:
    """What a call asks for."""
    return Paging(request=request, response=response, limit=limit, cursor=cursor)


ThePaging = Annotated[Paging, Depends(paging)]


@dataclass(frozen=True, kw_only=True)
class Listing(Generic[_Item]):
    """A list in its order. `read(key, n)` gives the next `n` items after a key; `sees` which of them are shown.

    `load` is how many parts an item has, where that differs much: a page ends before it has more than `MOST_PARTS`.
    `at_once` items are read at most, and then the next ones.
    """

    read: Callable[[list[Any] | None, int], Sequence[_Item]]
    key: Callable[[_Item], tuple[str | int, ...]]
    sees: Callable[[_Item], bool]
    load: Callable[[_Item], int] = lambda _: 0
    at_once: int = _BATCH

    def page(self, asked: Paging) -> list[_Item]:
        """The page that is asked for. One that is short or empty may have a next one: rights are looked at late."""
        found: list[_Item] = []
        after, read, parts = asked.after, 0, 0
        size = min(self.at_once, _BATCH, asked.limit + 1)
        while read < _MOST_READ:
            batch = self._read(after, size)
            for item in batch:
                if len(found) == asked.limit:
                    asked.go_on_after(*(after or ()))
                    return found
                if self.sees(item):
                    parts += self.load(item)
                    if found and parts > MOST_PARTS:
                        asked.go_on_after(*(after or ()))
                        return found
                    found.append(item)
                after = list(self.key(item))
            read += len(batch)
            if len(batch) < size:
                return found
        asked.go_on_after(*(after or ()))
        return found

    def _read(self, after: list[Any] | None, count: int) -> Sequence[_Item]:
        try:
            return self.read(after, count)
        except (IndexError, OverflowError, TypeError, ValueError) as error:
            if after is None:
                raise
            raise BadCursor from error  # somebody made it up


def stamp(time: dt.datetime | None) -> str:
    """A time as the data base has them; empty when there is none. Raises `BadRequest` for the ends of the calendar."""
    if time is None:
        return ""
    try:
        return time.astimezone(dt.UTC).isoformat(timespec="milliseconds")
    except OverflowError as error:
        raise BadRequest(what=f"The time {time} is outside of the calendar", todo="correct it") from error


def in_time(time: dt.datetime, since: dt.datetime | None, until: dt.datetime | None) -> bool:
    """Whether a time lies between two others, of which the second no longer counts."""
    return (since is None or time >= since) and (until is None or time < until)


def listed(items: Sequence[_Item], key: Callable[[_Item], tuple[str | int, ...]]) -> Callable[..., Sequence[_Item]]:
    """The `read` of a list that is in memory, by its keys in rising order."""
    ordered = sorted(items, key=key)

    def read(after: list[Any] | None, count: int) -> Sequence[_Item]:
        rest = ordered if after is None else [item for item in ordered if key(item) > tuple(after)]
        return rest[:count]

    return read


def listed_out(answer: Response, kind: TypeAdapter[list[_Item]], documents: list[_Item]) -> Response:
    """The answer with a list, and what was put into its head.

    It is written here: the framework would look at each of a thousand documents once more, which takes as long as to
    make them.
    """
    return written_out(answer, kind.dump_json(documents))


def written_out(answer: Response, content: bytes) -> Response:
    """As `listed_out`, of a list that is JSON already."""
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return Response(content, media_type="application/json", headers=headers)
