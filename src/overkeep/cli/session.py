# SPDX-License-Identifier: GPL-3.0-or-later
"""The session of a user: where the controller and the Manager are, and his token, in a file of his own."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from overkeep.cli.exits import NotLoggedIn
from overkeep.errors import ConfigError


class Session(BaseModel):
    """What `overkeep login` keeps; the password is not among it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    controller: str
    controller_ca: Path
    engine: str
    engine_ca: Path
    username: str
    token: str


def path() -> Path:
    """Where the session is: `$OVERKEEP_SESSION`, else below the user's configuration folder."""
    named = os.environ.get("OVERKEEP_SESSION")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "overkeep" / "session.json"


def load() -> Session:
    """Read the session; raise `NotLoggedIn` when there is none, `ConfigError` when it is damaged."""
    try:
        return Session.model_validate_json(path().read_text())
    except FileNotFoundError as error:
        raise NotLoggedIn from error
    except (OSError, ValidationError) as error:
        raise ConfigError(path=path(), reason="the session is damaged; log in again with `overkeep login`") from error


def save(session: Session) -> None:
    """Write the session, readable by its owner alone."""
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(session.model_dump_json(indent=2))
    new.replace(target)


def forget() -> None:
    """Remove the session; none is success."""
    path().unlink(missing_ok=True)
