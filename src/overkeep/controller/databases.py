# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the controller keeps its own tables and those of the job engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa

from overkeep.config import ControllerConfig
from overkeep.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Databases:
    """The URLs of both; they hold a password and are never shown. `shared`: other controllers use them as well."""

    store: str = field(repr=False)
    jobs: str = field(repr=False)
    shared: bool

    @classmethod
    def of(cls, settings: ControllerConfig) -> Databases:
        """Those of the settings: one data base of a server, or two files. Raises `ConfigError`."""
        if not settings.database:
            folder = settings.state_dir
            store, jobs = folder / "controller.sqlite", folder / "jobs.sqlite"
            return cls(store=f"sqlite:///{store}", jobs=f"sqlite:///{jobs}", shared=False)
        url = _with_password(settings)
        return cls(
            store=url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False),
            jobs=url.render_as_string(hide_password=False),
            shared=True,
        )


def _with_password(settings: ControllerConfig) -> sa.URL:
    try:
        url = sa.make_url(settings.database)
    except sa.exc.ArgumentError as error:
        raise ConfigError(path="database", reason="it is no URL of a PostgreSQL data base") from error
    if url.password is not None:
        raise ConfigError(path="database", reason="a password belongs into the file database_password_file")
    path = settings.database_password_file
    if path is None:
        return url
    try:
        return url.set(password=path.read_text().strip())
    except OSError as error:
        raise ConfigError(path=path, reason=error.strerror) from error
