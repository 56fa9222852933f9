# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's search language: `name=web* and (status=up or tag=prod) sortby name desc page 2`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from ovirtlab.engine.faults import BadRequest

Word: TypeAlias = str | int | datetime | tuple[str, ...] | None
Words: TypeAlias = Mapping[str, Word]
Test: TypeAlias = Callable[[Words], bool]

_TOKEN = re.compile(r'\s*(?:"(?P<quoted>[^"]*)"|(?P<mark>!=|<=|>=|=|<|>|\(|\))|(?P<word>[^\s"=!<>()]+))')
_COMPARISONS = ("=", "!=", "<", ">", "<=", ">=")
_ENUMERATIONS = {"status", "severity", "type", "disk_type", "format", "content_type"}


@dataclass(frozen=True)
class Query:
    """A parsed search: the condition, the key to sort by, and the page (from 1)."""

    test: Test
    sort_key: str = ""
    descending: bool = False
    page: int = 1


@dataclass(frozen=True)
class _Token:
    text: str
    kind: str  # word, quoted, mark

    def keyword(self) -> str:
        return self.text.lower() if self.kind == "word" else ""


def parse(text: str, keys: frozenset[str], *, case_sensitive: bool = True) -> Query:
    """Read a search; unknown keys and broken syntax are 400 faults."""
    return _Parser(_tokens(text), keys, case_sensitive=case_sensitive).query()


def _tokens(text: str) -> list[_Token]:
    text = re.sub(r"^\s*\w+\s*:\s*", "", text)
    found: list[_Token] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _broken(text)
        kind = match.lastgroup or "word"
        found.append(_Token(match.group(kind), kind))
        position = match.end()
    return found


def _broken(text: str) -> BadRequest:
    return BadRequest(f"The search query '{text}' is not valid.")


class _Parser:
    def __init__(self, tokens: Sequence[_Token], keys: frozenset[str], *, case_sensitive: bool) -> None:
        self._tokens = tokens
        self._keys = keys
        self._case_sensitive = case_sensitive
        self._at = 0

    def query(self) -> Query:
        test = self._alternatives() if self._peek() not in ("", "sortby", "page") else _everything
        key, descending = self._sorting()
        page = self._page()
        if self._at != len(self._tokens):
            raise self._error()
        return Query(test, key, descending, page)

    def _alternatives(self) -> Test:
        tests = [self._all_of()]
        while self._peek() == "or":
            self._at += 1
            tests.append(self._all_of())
        return lambda words: any(test(words) for test in tests)

    def _all_of(self) -> Test:
        tests = [self._condition()]
        while self._peek() not in ("", "or", ")", "sortby", "page"):
            if self._peek() == "and":
                self._at += 1
            tests.append(self._condition())
        return lambda words: all(test(words) for test in tests)

    def _condition(self) -> Test:
        if self._peek() == "(":
            self._at += 1
            inner = self._alternatives()
            if self._peek() != ")":
                raise self._error()
            self._at += 1
            return inner
        token = self._next()
        if token.kind == "mark":
            raise self._error()
        if self._peek() in _COMPARISONS:
            return self._comparison(token)
        return self._anywhere(token.text)

    def _comparison(self, key: _Token) -> Test:
        name = key.text.lower()
        if name not in self._keys:
            raise BadRequest(f"The search key '{key.text}' is not known.")
        operator = self._next().text
        value = self._next()
        if value.kind == "mark":
            raise self._error()
        return _compare(name, operator, value.text, case_sensitive=self._case_sensitive)

    def _anywhere(self, text: str) -> Test:
        pattern = re.compile(".*" + _wildcards(text) + ".*", re.IGNORECASE | re.DOTALL)
        return lambda words: any(_matches(pattern, word) for word in words.values())

    def _sorting(self) -> tuple[str, bool]:
        if self._peek() != "sortby":
            return "", False
        self._at += 1
        key = self._next().text.lower()
        if key not in self._keys:
            raise BadRequest(f"The search key '{key}' is not known.")
        if self._peek() in ("asc", "desc"):
            return key, self._next().text.lower() == "desc"
        return key, False

    def _page(self) -> int:
        if self._peek() != "page":
            return 1
        self._at += 1
        text = self._next().text
        if not text.isdigit() or int(text) < 1:
            raise self._error()
        return int(text)

    def _peek(self) -> str:
        if self._at >= len(self._tokens):
            return ""
        token = self._tokens[self._at]
        return token.text if token.kind == "mark" else token.keyword() or '"'

    def _next(self) -> _Token:
        if self._at >= len(self._tokens):
            raise self._error()
        self._at += 1
        return self._tokens[self._at - 1]

    def _error(self) -> BadRequest:
        return _broken(" ".join(token.text for token in self._tokens))


def _everything(words: Words) -> bool:
    return True


def _wildcards(text: str) -> str:
    return ".*".join(re.escape(part) for part in text.split("*"))


def _matches(pattern: re.Pattern[str], word: Word) -> bool:
    if isinstance(word, tuple):
        return any(pattern.fullmatch(one) for one in word)
    return word is not None and not isinstance(word, datetime) and pattern.fullmatch(str(word)) is not None


def _compare(key: str, operator: str, value: str, *, case_sensitive: bool) -> Test:
    if operator in ("=", "!="):
        flags = 0 if case_sensitive and key not in _ENUMERATIONS else re.IGNORECASE
        pattern = re.compile(_wildcards(value), flags | re.DOTALL)
        return lambda words: _matches(pattern, words.get(key)) is (operator == "=")
    return lambda words: _before_or_after(words.get(key), operator, value)


def _before_or_after(word: Word, operator: str, text: str) -> bool:
    if word is None or isinstance(word, tuple):
        return False
    order = _order(word, text)
    return {"<": order < 0, ">": order > 0, "<=": order <= 0, ">=": order >= 0}[operator]


def _order(word: str | int | datetime, text: str) -> float:
    """Negative, zero or positive as the word stands before, at or after the text."""
    try:
        if isinstance(word, datetime):
            moment = _moment(text, word)
            return word.timestamp() - (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if isinstance(word, int):
            return word - float(text)
    except ValueError:
        raise _broken(text) from None
    return (word > text) - (word < text)


def _moment(text: str, now: datetime) -> datetime:
    """A date; `today` and `yesterday` begin at midnight."""
    days = {"today": 0, "yesterday": 1}.get(text.lower())
    if days is None:
        return datetime.fromisoformat(text)
    return datetime.now(now.tzinfo).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
