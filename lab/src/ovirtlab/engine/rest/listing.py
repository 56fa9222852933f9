# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists: what the user sees, narrowed by `search`, sorted, and cut by `max` and page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ovirtlab.engine.access import sees
from ovirtlab.engine.rest.documents import Collection, Entity
from ovirtlab.engine.rest.routing import Call
from ovirtlab.engine.search import Word, parse

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[T]):
    """One kind of object in lists: its names, how it is shown, the words a search finds it by.

    `place` is what the user-level view is judged by, `(kind, id)`; without it everybody sees all. `words` has a reader
    for each search key; without any `search` is not looked at, as in lists of the engine that cannot be searched.
    """

    tag: str
    member: str
    show: Callable[[Call, T], Entity]
    words: Mapping[str, Callable[[T], Word]] = field(default_factory=dict)
    place: Callable[[T], tuple[str, str]] | None = None

    def listing(self, call: Call, items: Iterable[T]) -> Collection:
        """The answer to a GET of the collection."""
        visible = self.visible(call, items)
        text = call.text("search")
        page = 1
        if text and self.words:
            query = parse(text, frozenset(self.words), case_sensitive=call.flag("case_sensitive", default=True))
            visible = [item for item in visible if query.test(_Words(self.words, item))]
            page = query.page
            if query.sort_key:
                read = self.words[query.sort_key]
                visible.sort(key=lambda item: _sortable(read(item)), reverse=query.descending)
        visible = cut(visible, call.integer("max"), page)
        return Collection(self.tag, self.member, [self.show(call, item) for item in visible])

    def visible(self, call: Call, items: Iterable[T]) -> list[T]:
        """What the user sees of these."""
        if not call.filtered or self.place is None:
            return list(items)
        place = self.place
        return [item for item in items if sees(call.context.state, call.user, on=place(item))]


class _Words(Mapping[str, Word]):
    """The words of one object, read when they are asked for; a search for a text anywhere asks for its own only."""

    def __init__(self, readers: Mapping[str, Callable[[Any], Word]], item: object) -> None:
        self._readers = readers
        self._item = item

    def __getitem__(self, key: str) -> Word:
        return self._readers[key](self._item)

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._readers if "." not in key)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def cut(items: list[T], size: int | None, page: int = 1) -> list[T]:
    """The page of at most `size` items; a page without a size has 100, as the engine's does."""
    if size is None or size < 0:
        if page == 1:
            return items
        size = 100
    return items[(page - 1) * size : page * size]


def _sortable(word: Word) -> tuple[bool, str | float]:
    """Missing words first; numbers and times by size, text without regard to case."""
    if word is None:
        return (False, "")
    if isinstance(word, int):
        return (True, float(word))
    if isinstance(word, tuple):
        return (True, ",".join(word).lower())
    return (True, word.lower()) if isinstance(word, str) else (True, word.timestamp())
