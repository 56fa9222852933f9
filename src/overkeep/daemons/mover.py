# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep-mover`: the data mover of a host, from its settings file to its clean end, and its subcommands."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from overkeep import __version__, config, exits, logs
from overkeep.blocks import heap
from overkeep.daemons.mover_commands import COMMANDS, running
from overkeep.daemons.signals import stop_signals
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.mover.service import MoverService

DEFAULT_CONFIG = Path("/etc/overkeep/mover.toml")

log = logging.getLogger(__name__)


def run() -> None:
    """Entry point; ends the process with the status of `main`."""
    heap.share()
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run a subcommand, or serve without one; return the exit status (`overkeep.exits`)."""
    try:
        options = _parser().parse_args(arguments)
    except OverkeepError as error:  # an argument that is not what it should be
        return _complain(error)
    command = next((command for command in COMMANDS if options.command == command.NAME), None)
    return _serve(options.config) if command is None else running.run(command, options)


def _serve(path: Path) -> int:
    """Serve until SIGTERM or SIGINT. Returns 0 after a clean stop, 1 when the server broke, 2 for bad settings."""
    try:
        settings = config.load(config.MoverConfig, path)
        logs.setup(settings.log_level)
        with stop_signals() as signals, MoverService(settings) as mover:
            # beside the server: a dead NFS server holds the mount command for minutes
            threading.Thread(target=mover.try_mounts, name="mounts", daemon=True).start()
            while not signals.wait(1.0):
                if not mover.alive:
                    log.error("mover broke %s", fields(reason="the HTTPS server ended"))
                    return exits.FAILED
    except OverkeepError as error:
        _complain(error)
        return exits.USAGE
    return exits.OK


def _complain(error: OverkeepError) -> int:
    print(f"overkeep-mover: {error}", file=sys.stderr)  # noqa: T201 - a terminal or the journal reads it
    return exits.of(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="overkeep-mover", description="Data mover of one host. Without a command it serves orders."
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--version", action="version", version=f"overkeep-mover {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in COMMANDS:
        made = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        command.add_arguments(made)
        add_json(made)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that all commands have."""
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
