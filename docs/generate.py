# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m docs.generate`: write the tables of the guide that repeat code, between the marks in its files."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from types import MappingProxyType, UnionType
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import overkeep
from overkeep.cli.exits import Problem
from overkeep.cli.main import app
from overkeep.config import ControllerConfig, MoverConfig
from overkeep.controller.events import MEANINGS, Kind, level_of
from overkeep.daemons.mover import add_json
from overkeep.daemons.mover_commands import COMMANDS
from overkeep.errors import OverkeepError

GUIDE = Path(__file__).parent / "guide"

_MARK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIELD = re.compile(r"\{(\w+)[^}]*\}")
_TYPES: Mapping[type, str] = MappingProxyType({str: "string", int: "integer", float: "number", PurePath: "path"})
_LIMITS = (("ge", "{} or more"), ("min_length", "at least {}"), ("pattern", "form `{}`"))

# Headings of the errors' tables, by the package that raises them; in this order.
_AREAS = (
    ("errors", "Everywhere"),
    ("cli", "The command line"),
    ("api", "The API"),
    ("controller", "The controller"),
    ("model", "Plans of backups and restores"),
    ("engine", "The Manager"),
    ("mover", "Data movers"),
    ("blocks", "Disks and images"),
    ("repository", "Targets and repositories"),
)


def outdated() -> dict[Path, str]:
    """The files of the guide whose tables are not those of the code, and what they should hold."""
    found = {path: (path.read_text(), generated(path.read_text())) for path in sorted(GUIDE.glob("*.md"))}
    return {path: new for path, (old, new) in found.items() if old != new}


def generated(text: str) -> str:
    """Return `text` with the parts between marks made anew; KeyError for a mark that nothing is made for."""
    return _MARK.sub(lambda mark: f"{mark[1]}\n{PARTS[mark['name']]()}\n{mark[3]}", text)


# settings


def settings(kind: type[BaseModel]) -> str:
    """Tables of all settings of a file: its own first, then those of its sections."""
    fields = kind.model_fields
    plain = {name: field for name, field in fields.items() if _section(field) is None}
    parts = [_settings_table(plain)]
    for name, field in fields.items():
        if section := _section(field):
            title = f"[[{name}]]" if _is_list(field) else f"[{name}]"
            parts.append(f"### `{title}`\n\n{_sentence(field)}\n\n{_settings_table(section.model_fields)}")
    return "\n".join(parts)


def _settings_table(fields: Mapping[str, FieldInfo]) -> str:
    rows = [(f"`{name}`", _type(field), _default(field), described(name, field)) for name, field in fields.items()]
    return table(("setting", "type", "default", "meaning"), rows)


def described(name: str, field: FieldInfo) -> str:
    """The description of a setting; raise `ValueError` when it has none."""
    if not field.description:
        raise ValueError(f"the setting {name} has no description")
    return field.description


def _sentence(field: FieldInfo) -> str:
    text = described("section", field)
    needed = "Needed" if field.is_required() else "May be absent"
    many = "; may be there several times" if _is_list(field) else ""
    return f"{text[0].upper()}{text[1:]}. {needed}{many}."


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kinds = get_args(field.annotation) if _is_list(field) else (field.annotation,)
    return kinds[0] if inspect.isclass(kinds[0]) and issubclass(kinds[0], BaseModel) else None


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _type(field: FieldInfo) -> str:
    many = _is_list(field)
    kind = get_args(field.annotation)[0] if many else _without_none(field.annotation)
    if get_origin(kind) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(kind))
    word = next(word for known, word in _TYPES.items() if inspect.isclass(kind) and issubclass(kind, known))
    limits = [
        form.format(value)
        for name, form in _LIMITS
        for limit in field.metadata
        if (value := getattr(limit, name, None)) is not None
    ]
    return ", ".join([f"list of {word}s" if many else word, *limits])


def _without_none(annotation: Any) -> Any:
    """The type of a setting that may also not be set."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return kinds[0] if get_origin(annotation) is UnionType and len(kinds) == 1 else annotation


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    if field.default is None:
        return "not set"
    value = [*field.default] if _is_list(field) else field.default
    return f"`{json.dumps(value, default=str)}`"


# errors


def errors() -> str:
    """A table of error codes for each area of the code."""
    parts = []
    for area, title in _AREAS:
        rows = sorted({_error_row(kind) for kind in error_kinds() if _area(kind) == area})
        parts.append(f"### {title}\n\n{table(('code', 'sentence', 'HTTP', 'retry'), rows)}")
    return "\n".join(parts)


def error_kinds() -> list[type[OverkeepError]]:
    """All errors that a user may see: those with a code or a sentence of their own, in all modules of the product."""
    for module in pkgutil.walk_packages(overkeep.__path__, "overkeep."):
        if not module.name.startswith("overkeep.testing") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return [kind for kind in _subclasses(OverkeepError) if _is_shown(kind)]


def _subclasses(kind: type[OverkeepError]) -> Iterator[type[OverkeepError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


def _is_shown(kind: type[OverkeepError]) -> bool:
    """Private ones never leave the code, `Problem` repeats what the controller said, bases only group others."""
    is_base = "template" not in vars(kind) and bool(kind.__subclasses__())
    ours = kind.__module__.startswith("overkeep.") and not kind.__module__.startswith("overkeep.testing")
    return ours and kind is not Problem and not kind.__name__.startswith("_") and not is_base


def _area(kind: type[OverkeepError]) -> str:
    return kind.__module__.split(".")[1]


def _error_row(kind: type[OverkeepError]) -> tuple[str, ...]:
    words = _FIELD.sub("\u2039\\1\u203a", kind.template)
    return (f"`{kind.code}`", words, str(kind.status), "yes" if kind.retry else "no")


# events


def event_kinds() -> str:
    """A table of all kinds of events."""
    rows = [(f"`{kind}`", level_of(kind), MEANINGS[kind]) for kind in Kind]
    return table(("kind", "level", "meaning"), rows)


# commands


def commands() -> str:
    """A section for each command, with its arguments and options."""
    parts = []
    for path, command in walk_commands():
        parameters = [parameter for parameter in command.params if parameter.name != "help"]
        rows = [_parameter_row(parameter) for parameter in parameters]
        listed = f"\n{table(('', '', 'meaning'), rows)}" if rows else ""
        parts.append(f"### `{' '.join(path)}`\n\n{command.help}\n{listed}")
    return "\n".join(parts)


def walk_commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words of each command (`("workload", "create")`) and the command, as Typer made it."""
    yield from _walk(typer.main.get_command(app), ())


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children: Mapping[str, Any] = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name, child in children.items():
        yield from _walk(child, (*path, name))


def _parameter_row(parameter: Any) -> tuple[str, str, str]:
    needed = "needed" if parameter.required else ""
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`", needed, parameter.help
    value = "" if parameter.is_flag else f" {parameter.name.upper()}"
    default = f" Default: `{parameter.default}`." if _has_default(parameter) else ""
    return f"`{parameter.opts[0]}{value}`", needed, f"{parameter.help}{default}"


def _has_default(parameter: Any) -> bool:
    return not parameter.required and not parameter.is_flag and isinstance(parameter.default, int | Path)


# commands of the mover


def mover_commands() -> str:
    """A section for each subcommand of `overkeep-mover`, with its arguments and options."""
    parts = []
    for command in COMMANDS:
        parser: Any = argparse.ArgumentParser(add_help=False)
        command.add_arguments(parser)
        add_json(parser)
        rows = [_action_row(action) for action in parser._actions]
        parts.append(f"### `{command.NAME}`\n\n{command.HELP}\n\n{table(('', '', 'meaning'), rows)}")
    return "\n".join(parts)


def _action_row(action: Any) -> tuple[str, str, str]:
    needed = "needed" if action.required else ""
    words = list(action.option_strings)
    if action.metavar:
        words.append(f"[={action.metavar}]" if action.nargs == "?" else action.metavar)
    return f"`{' '.join(words).replace(' [', '[')}`", needed, f"{action.help[0].upper()}{action.help[1:]}."


# Markdown


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars in cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


PARTS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "controller-settings": lambda: settings(ControllerConfig),
        "mover-settings": lambda: settings(MoverConfig),
        "errors": errors,
        "event-kinds": event_kinds,
        "commands": commands,
        "mover-commands": mover_commands,
    }
)


def main() -> None:
    """Write what is outdated and say which files that were."""
    for path, text in outdated().items():
        path.write_text(text)
        sys.stdout.write(f"written: {path}\n")


if __name__ == "__main__":
    main()
