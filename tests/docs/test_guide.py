from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs import generate
from overkeep.config import ControllerConfig, MoverConfig, load

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts)
)
COMMANDS = dict(generate.walk_commands())
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, *languages: str) -> Iterator[str]:
    """The fenced code blocks in one of `languages`; "" is a fence without a language."""
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if language in languages:
            yield body


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def calls(text: str) -> Iterator[list[str]]:
    """The words of every call of `overkeep` in the code blocks of a page."""
    for block in blocks(text, "", "sh", "bash", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if line.lstrip("$ ").startswith(("overkeep ", "/opt/")) else []
            if words and Path(words[0]).name == "overkeep":
                yield words[1:]


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {slug(title) for title in re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)}


def fault_of(words: list[str]) -> str:
    """What is wrong with a call of `overkeep`; empty when its command and its options exist."""
    if words[0].startswith("-"):
        return "" if words[0] in ("--version", "--help") else f"unknown option {words[0]}"
    path = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else (words[0],)
    if path not in COMMANDS:
        return f"unknown command {' '.join(words[:2])}"
    known = options(COMMANDS[path])
    unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
    return f"unknown options {unknown}" if unknown else ""


def options(command: Any) -> set[str]:
    found = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return {option for option in found if option.startswith("--")} | {"--help"}


def test_generated_tables_are_those_of_the_code() -> None:
    stale = [ids(path) for path in generate.outdated()]
    assert not stale, f"run `python -m docs.generate` and commit {stale}"


def test_every_part_is_in_the_guide() -> None:
    text = "".join(path.read_text() for path in GUIDE.glob("*.md"))
    assert [name for name in generate.PARTS if f"<!-- generated: {name} -->" not in text] == []


def test_a_stale_table_is_noticed() -> None:
    page = (GUIDE / "settings.md").read_text()
    assert generate.generated(page) == page
    assert generate.generated(page.replace("`8790`", "`1`")) == page


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_in_the_guide(path: tuple[str, ...]) -> None:
    page = (GUIDE / "cli.md").read_text()
    _, heading, section = page.partition(f"### `{' '.join(path)}`\n")
    assert heading, "the command is missing"
    section = section.partition("\n### ")[0]
    missing = [option for option in options(COMMANDS[path]) - {"--help"} if not re.search(rf"`{option}\b", section)]
    assert missing == []


def test_every_error_code_is_in_the_guide() -> None:
    page = (GUIDE / "errors.md").read_text()
    assert [kind.code for kind in generate.error_kinds() if f"| `{kind.code}` |" not in page] == []


def test_advice_is_about_codes_that_exist() -> None:
    advice = (GUIDE / "errors.md").read_text().partition("## When the sentence is not enough")[2]
    named = {code for row in re.findall(r"^\| (`.*?) \|", advice, re.MULTILINE) for code in re.findall("`(.+?)`", row)}
    assert named
    assert named <= {kind.code for kind in generate.error_kinds()}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page.read_text())):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_code_blocks_call_commands_that_exist(page: Path) -> None:
    assert [fault for words in calls(page.read_text()) if (fault := fault_of(words))] == []


def test_calls_in_the_readme_are_seen() -> None:
    assert len(list(calls((ROOT / "README.md").read_text()))) >= 4


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("points --vm web", ""),
        ("workload create shop --vm web", ""),
        ("--version", ""),
        ("point list", "unknown command point list"),
        ("workload rename a b", "unknown command workload rename"),
        ("points --virtual web", "unknown options ['--virtual']"),
    ],
)
def test_faults_of_calls(line: str, fault: str) -> None:
    assert fault_of(line.split()) == fault


def test_settings_in_the_guide_are_accepted(tmp_path: Path) -> None:
    controller, mover = blocks((GUIDE / "install.md").read_text(), "toml")
    path = tmp_path / "settings.toml"
    path.write_text(controller)
    assert load(ControllerConfig, path).target[0].name == "nfs1"
    path.write_text(mover)
    assert load(MoverConfig, path).target[0].name == "nfs1"


def test_a_setting_without_a_description_is_refused() -> None:
    with pytest.raises(ValueError, match="the setting port has no description"):
        generate.described("port", type(ControllerConfig.model_fields["port"])(default=1))
