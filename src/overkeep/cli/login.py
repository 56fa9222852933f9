# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep login` and `logout`: with a name and a password of the Manager, which are not kept."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from overkeep.api.documents import HealthOut
from overkeep.cli import output, session
from overkeep.cli.client import Client
from overkeep.cli.session import Session
from overkeep.engine import access
from overkeep.errors import BadRequest, OverkeepError


def login(
    engine: Annotated[str, typer.Argument(metavar="URL", help="https://engine.example/ovirt-engine/api")],
    ca_file: Annotated[Path, typer.Option(help="CA certificate of the Manager.")],
    username: Annotated[str, typer.Option(help="User of the Manager: name@profile.")],
    controller: Annotated[str, typer.Option(help="https://controller.example:8790")],
    controller_ca_file: Annotated[Path, typer.Option(help="CA certificate of the controller.")],
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password; without it, it is asked for or read from stdin.")
    ] = None,
) -> None:
    """Log in at the Manager; the token is kept for the other commands, the password is not."""
    known = Session(
        controller=controller.rstrip("/"),
        controller_ca=controller_ca_file.absolute(),
        engine=engine,
        engine_ca=ca_file.absolute(),
        username=username,
        token="",
    )
    with Client(known) as client:
        client.get("/api/v1/health", HealthOut)
    token = access.login(engine, known.engine_ca, username=username, password=_password(password_file))
    session.save(known.model_copy(update={"token": token}))
    output.say(f"Logged in as {username}.")


def logout() -> None:
    """Revoke the token and forget the session."""
    known = session.load()
    session.forget()
    try:
        access.logout(known.engine, known.engine_ca, token=known.token)
    except OverkeepError as error:
        output.complain(f"The session is forgotten, but the Manager was not told: {error}")
        return
    output.say("Logged out.")


def _password(file: Path | None) -> str:
    if file is not None:
        try:
            return file.read_text().rstrip("\n")
        except OSError as error:
            raise BadRequest(what=f"{file} cannot be read ({error.strerror})", todo="name another file") from error
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    return sys.stdin.readline().rstrip("\n")
