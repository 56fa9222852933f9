# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined] # it does not name it as its own

from overkeep.cli import output

PROGRAM = "overkeep"
VARIABLE = "_OVERKEEP_COMPLETE"  # set by the script when the shell asks


class Shell(StrEnum):
    """The shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="`bash`, `zsh` or `fish`.")]) -> None:
    """Print the completion script of a shell; its first lines say where it goes."""
    where = {
        Shell.BASH: "~/.local/share/bash-completion/completions/overkeep",
        Shell.ZSH: "_overkeep in a folder of $fpath, before compinit runs",
        Shell.FISH: "~/.config/fish/completions/overkeep.fish",
    }[shell]
    script = get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell)
    head = [] if shell is Shell.ZSH else [f"# Keep this as {where}."]
    tail = [f"# Keep this as {where}."] if shell is Shell.ZSH else []  # `#compdef` must be the first line
    output.say("\n".join([*head, script.strip(), *tail]))


def prepare() -> None:
    """Make the answers ready when it is a shell that asks; it costs nothing else."""
    if VARIABLE in os.environ:
        completion_init()
