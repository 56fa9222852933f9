# SPDX-License-Identifier: GPL-3.0-or-later
"""All times of the lab's engine are settings, all of them do something, and the table of them tells the truth."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import httpx

from ovirtlab.engine import timers
from ovirtlab.engine.timers import Settings
from ovirtlab.engine_only import served

ENGINE = Path(timers.__file__).parent
TABLE = Path(__file__).parents[1] / "docs" / "times.md"
ROW = re.compile(
    r"\| `(?P<name>\w+)` \| (?P<value>\S+) (?P<unit>s|min)"
    r" \| (?P<option>[^|]+) \| (?P<scales>yes|no|in part) \| [^|]+ \|"
)
OPTION = re.compile(r"`(?P<name>\w+)` (?P<value>\d+), (?P<place>[\w.-]+)")
NO_TIMES = {"use_hybrid_backup", "proxy_port", "outdated_hosts", "hosts_without_backup"}
UNITS = {"s": 1, "min": 60}
# what waits, or is compared with a clock, and the place of its seconds among the arguments
WAITS = {"sleep": 0, "every": 0, "real": 0}


def rows() -> dict[str, re.Match[str]]:
    found = [ROW.fullmatch(line) for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    assert all(found), "a row of the table is not understood"
    return {row["name"]: row for row in found if row}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ENGINE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def waits() -> Iterator[tuple[str, ast.expr]]:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITS:
                owner = ast.unparse(node.func.value)
                if owner.endswith(("clock", "background")) and path.name not in ("clock.py", "background.py"):
                    yield f"{path.name}:{node.lineno}", node.args[WAITS[node.func.attr]]


def test_the_table_holds_every_time_and_nothing_else() -> None:
    named = {setting.name for setting in dataclasses.fields(Settings)} - NO_TIMES
    assert set(rows()) == named == {name for name, _, _ in timers.times()}


def test_the_table_tells_the_values_of_the_code() -> None:
    told = {name: float(row["value"]) * UNITS[row["unit"]] for name, row in rows().items()}
    settings = Settings()
    assert told == {name: getattr(settings, name) for name in told}


def test_the_engine_waits_for_settings_only() -> None:
    """A number in a call that waits would be a time that the table does not know."""
    found = list(waits())
    assert len(found) > 8
    for place, seconds in found:
        text = ast.unparse(seconds)
        assert "settings." in text or text in ("pace.next()", "session.expires - clock.seconds()"), f"{place}: {text}"


def test_the_clock_is_reckoned_with_settings_only() -> None:
    """What is added to a time of the clock, or compared with it, is neither a number nor a constant of a module."""
    reckoned = 0
    for path, tree in trees():
        for node in ast.walk(tree):
            reckons = isinstance(node, ast.Compare) or isinstance(getattr(node, "op", None), ast.Add | ast.Sub)
            if reckons and re.search(r"clock\.(seconds|now)\(\)", ast.unparse(node)):
                reckoned += 1
                found = [ast.unparse(part) for part in ast.walk(node) if is_constant(part)]
                assert not found or path.name == "clock.py", f"{path.name}:{node.lineno}: {found}"
    assert reckoned > 4


def is_constant(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id.isupper()
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def test_every_time_is_read_somewhere() -> None:
    read = {node.attr for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(rows()) <= read


def test_options_are_answered_as_the_table_tells() -> None:
    told = [(name, OPTION.fullmatch(row["option"])) for name, row in rows().items() if row["option"] != "none"]
    with (
        served() as lab,
        httpx.Client(auth=(lab.username, lab.password), headers={"Accept": "application/json"}) as http,
    ):
        for name, option in told:
            assert option is not None, name
            answer = http.get(f"{lab.url}/options/{option['name']}")
            if option["place"] != "engine-config":
                assert answer.status_code == 404, name
            else:
                assert answer.json()["values"]["system_option_value"][0]["value"] == option["value"], name


def test_what_is_waited_for_by_the_engines_clock_is_told_to_scale() -> None:
    """And the other way round for what only the daemons count."""
    waited = {name for name in rows() for _, seconds in waits() if ast.unparse(seconds).endswith(f"settings.{name}")}
    assert len(waited) >= 8
    assert {rows()[name]["scales"] for name in waited} == {"yes"}
    assert {name for name, row in rows().items() if row["scales"] == "no"} == {
        "client_inactivity_timeout",
        "console_ticket_lifetime",
    }
