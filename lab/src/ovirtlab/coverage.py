# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m ovirtlab.coverage FOLDER`: write into the lab's documents what the code itself says it covers.

In each Markdown file of FOLDER the parts between `<!-- generated: NAME -->` and `<!-- end -->` are made anew: `calls`
from the routes that the engine has, `faults` from those there are, `times` from the engine's settings.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from ovirtlab.engine.app import GROUPS
from ovirtlab.engine.rest.documents import API
from ovirtlab.engine.rest.routing import Handler, Route
from ovirtlab.engine.timers import MINUTE, Time
from ovirtlab.engine.timers import times as all_times
from ovirtlab.faults.active import GROUPS as FAULT_GROUPS
from ovirtlab.faults.base import Fault, Parameter

_MARK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_METHODS = ("GET", "POST", "PUT", "DELETE")


def outdated(folder: Path) -> dict[Path, str]:
    """The files whose generated parts are not what the code says, and what they should hold."""
    found = {path: path.read_text() for path in sorted(folder.glob("*.md"))}
    return {path: new for path, old in found.items() if (new := generated(old)) != old}


def generated(text: str) -> str:
    """Return `text` with the parts between marks made anew; KeyError for a mark that nothing is made for."""
    return _MARK.sub(lambda mark: f"{mark[1]}\n{_PARTS[mark['name']]()}\n{mark[3]}", text)


def calls() -> str:
    """All calls of the REST interface, by the module that answers them."""
    lines = [f"{sum(len(group.routes.all) for group in GROUPS)} calls below `{API}`.", ""]
    for group in sorted(GROUPS, key=lambda group: group.__name__):
        lines += _group(group)
    return "\n".join(lines)


def _group(group: ModuleType) -> Iterator[str]:
    yield f"### {group.__name__.rpartition('.')[2].replace('_', ' ').capitalize()}"
    yield ""
    yield (group.__doc__ or "").strip()
    yield ""
    yield "| call | does |"
    yield "|---|---|"
    routes: list[Route] = group.routes.all
    for route in sorted(routes, key=lambda route: (route.pattern, _METHODS.index(route.method))):
        yield f"| `{route.method} {'/'.join(route.pattern) or '/'}` | {_cell(_note(route.handler))} |"
    yield ""


def _note(handler: Handler) -> str:
    """What a handler says of itself, else its name in words."""
    text = inspect.getdoc(handler)
    if text:
        return " ".join(text.split("\n\n")[0].split())
    name = getattr(handler, "__name__", "")
    return name.strip("_").replace("_", " ")


def faults() -> str:
    """All faults on demand, with their parameters."""
    lines = []
    for name, group in FAULT_GROUPS.items():
        lines += [
            f"### {name}",
            "",
            "| fault | what goes wrong | what clearing does | what stays |",
            "|---|---|---|---|",
        ]
        lines += [_fault(fault) for fault in group]
        lines += ["", "| parameter | meaning |", "|---|---|"]
        lines += [_parameter(fault, one) for fault in group for one in fault.parameters()]
        lines += [""]
    return "\n".join(lines)


def _fault(fault: type[Fault]) -> str:
    text = " ".join((fault.__doc__ or "").split())
    stays = f"{fault.lasting[:1].upper()}{fault.lasting[1:]}." if fault.lasting else "Nothing."
    return f"| `{fault.name}` | {_cell(text)} | {fault.mended or 'Nothing: it is over at once.'} | {_cell(stays)} |"


def _parameter(fault: type[Fault], one: Parameter) -> str:
    default = "" if one.default in (None, "") else f" Default: `{one.default}`."
    must = " Must be given." if one.default is None else ""
    return f"| `{fault.name}` `{one.name}` | {_cell(one.help)}{default}{must} |"


def times() -> str:
    """All times that the engine keeps, with what a real one calls them."""
    head = ["| setting | value | in a real engine | `time_scale` applies | what it is |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(_time(name, value, time) for name, value, time in all_times()), ""])


def _time(name: str, value: float, time: Time) -> str:
    scaled = {"engine": "yes", "real": "no", "both": "in part"}[time.clock]
    return f"| `{name}` | {_length(value)} | {_option(value, time)} | {scaled} | {_cell(time.governs)} |"


def _length(seconds: float) -> str:
    whole = seconds >= MINUTE * 10 and seconds % MINUTE == 0 and seconds < MINUTE * MINUTE
    return f"{seconds / MINUTE:g} min" if whole else f"{seconds:g} s"


def _option(value: float, time: Time) -> str:
    return f"`{time.option}` {value / time.unit:g}, {time.place}" if time.option else "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_PARTS = {"calls": calls, "faults": faults, "times": times}


def main(arguments: list[str]) -> None:
    """Bring the files of a folder up to date."""
    for path, text in outdated(Path(arguments[0])).items():
        path.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
