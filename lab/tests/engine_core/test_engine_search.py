# SPDX-License-Identifier: GPL-3.0-or-later
"""The search language, as a table of queries and what they find."""

from datetime import UTC, datetime

import httpx
import pytest

from ovirtlab.engine.faults import BadRequest
from ovirtlab.engine.search import parse

KEYS = frozenset({"name", "status", "tag", "memory", "time"})
WORDS = {
    "web1": {
        "name": "web1",
        "status": "up",
        "tag": ("prod", "gold"),
        "memory": 512,
        "time": datetime(2026, 1, 1, tzinfo=UTC),
    },
    "web2": {"name": "web2", "status": "down", "tag": (), "memory": 2048, "time": datetime(2026, 2, 1, tzinfo=UTC)},
    "my db": {"name": "my db", "status": "up", "tag": ("prod",), "memory": 4096, "time": None},
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name=web1", ["web1"]),
        ("name = web1", ["web1"]),
        ("name=web*", ["web1", "web2"]),
        ("name!=web*", ["my db"]),
        ('name="my db"', ["my db"]),
        ("Vms: name=web1", ["web1"]),
        ("status=Up", ["web1", "my db"]),
        ("status=up and name=web*", ["web1"]),
        ("status=up name=web*", ["web1"]),
        ("name=web1 or name=web2 and status=up", ["web1"]),
        ("(name=web1 or name=web2) and status=down", ["web2"]),
        ("tag=gold or memory>3000", ["web1", "my db"]),
        ("memory<=2048", ["web1", "web2"]),
        ("time>2026-01-15", ["web2"]),
        ("DB", ["my db"]),
        ("", ["web1", "web2", "my db"]),
        ("name=nothing", []),
    ],
)
def test_finds(text: str, found: list[str]) -> None:
    query = parse(text, KEYS)
    assert [name for name, words in WORDS.items() if query.test(words)] == found


def test_case_matters_in_text_only_when_asked() -> None:
    assert not parse("name=WEB1", KEYS).test(WORDS["web1"])
    assert parse("name=WEB1", KEYS, case_sensitive=False).test(WORDS["web1"])


def test_sort_and_page() -> None:
    query = parse("status=up sortby name desc page 3", KEYS)
    assert (query.sort_key, query.descending, query.page) == ("name", True, 3)
    assert parse("sortby time asc", KEYS).test(WORDS["web2"])


@pytest.mark.parametrize("text", ["colour=red", "name=", "name", "(name=a", "name=a and", "sortby colour", "page x"])
def test_refuses(text: str) -> None:
    if text == "name":
        assert not parse(text, KEYS).test(WORDS["web1"])  # a word without an operator is free text
        return
    with pytest.raises(BadRequest):
        parse(text, KEYS)


@pytest.mark.parametrize("path", ["affinitylabels", "bookmarks", "diskprofiles", "macpools", "permissions"])
def test_lists_that_cannot_be_searched_take_no_notice_of_a_search(http: httpx.Client, path: str) -> None:
    """As in an engine; a client that takes the first of what it gets is found out here, too."""
    http.headers["Accept"] = "application/json"
    http.post("bookmarks", json={"name": "mine", "value": "Vms:"}).raise_for_status()
    found = http.get(path, params={"search": "name=nothing"})
    assert found.status_code == 200
    assert found.json() == http.get(path).json()
