# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at the whole installation: everything that a new one can get wrong, and what to do about it."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from cryptography import x509

from overkeep import __version__
from overkeep.config import ControllerConfig, TargetConfig
from overkeep.controller.databases import Databases
from overkeep.controller.movers.directory import MoverDirectory
from overkeep.controller.movers.enrolment import Pki
from overkeep.controller.movers.spread import Movers
from overkeep.engine import access
from overkeep.engine.access import OvirtAccess
from overkeep.engine.api import Access, Engine
from overkeep.engine.ovirt.engine import OvirtEngine
from overkeep.errors import ConfigError, OverkeepError
from overkeep.model.findings import Finding, Verdict
from overkeep.model.inventory import Host
from overkeep.mover.api import Mover
from overkeep.mover.signing import load_private_key
from overkeep.repository.looking import PATIENCE, Look, Looks
from overkeep.repository.mounts import Mounts
from overkeep.repository.probe import probe
from overkeep.units import GIB, human_size, utc_now

OLDEST_ENGINE = (4, 4)  # the first with backups of changed blocks
PERMITS = (  # of the service account, as docs/guide/install.md explains them
    "attach_disk",
    "backup_disk",
    "configure_vm_network",
    "configure_vm_storage",
    "create_disk",
    "create_vm",
    "delete_disk",
    "delete_vm",
    "edit_disk_properties",
    "import_export_vm",
    "inject_external_events",
    "run_vm",
)
_SOON = dt.timedelta(days=30)
_SKEW = 5.0  # seconds; from 30 on, movers refuse orders
_CONNECT_TIMEOUT = 10  # seconds
_LITTLE = GIB  # of space for the controller's own data


class EngineTooOld(OverkeepError):
    """The Manager has no backup API that is enough."""

    code = "engine-too-old"
    template = "The Manager has version {found} and needs 4.4 or newer for backups; upgrade it."


class PermitsMissing(OverkeepError):
    """The service account cannot do all that jobs do."""

    code = "permits-missing"
    template = (
        "The account {account} lacks the permits {missing}; add them to its role, which it needs on the whole system."
    )


class CertificateUnfit(OverkeepError):
    """A certificate cannot be used."""

    code = "certificate-unfit"
    template = "The certificate {path} cannot be used: {reason}; {todo}."


class DatabaseDamaged(OverkeepError):
    """SQLite finds the data base unsound."""

    code = "database-damaged"
    template = "The data base {path} is damaged ({reason}); stop the controller and put back a copy of it."


class DatabaseUnreachable(OverkeepError):
    """The data base that several controllers share cannot be used."""

    code = "database-unreachable"
    template = (
        "The data base of `database` in the controller's settings cannot be used ({reason}); check that its server "
        "runs, that this machine may connect to it, and the password in `database_password_file`."
    )
    retry = True
    status = 503


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the looks are at. `log_in` gives a token of the service account."""

    settings: ControllerConfig
    engine: Engine
    access: Access
    movers: Movers
    log_in: Callable[[], str]


class Inspection:
    """Looks at everything, side by side. Nothing is changed but a small file on each target, which is removed."""

    def __init__(self, around: Surroundings, *, patience: float = PATIENCE) -> None:
        self._around = around
        self._looks = Looks(patience=patience)
        self._at_hosts = Looks(patience=patience * 0.9)

    def run(self) -> tuple[Finding, ...]:
        """All findings: of the controller's own things, the Manager, the targets, and the mover of each host."""
        settings = self._around.settings
        pki = Pki(folder=settings.pki_dir)
        looks = [
            Look(area="controller", subject="state", act=self._state),
            *([Look(area="controller", subject="data base", act=self._database)] if settings.database else []),
            *(
                Look(area="certificate", subject=path.name, act=partial(_certificates, path))
                for path in (pki.ca_cert, pki.api_cert)
            ),
            Look(area="certificate", subject=pki.order_key.name, act=lambda: [order_key(pki.order_key)]),
            Look(area="manager", subject=settings.engine.url, act=self._manager),
            Look(area="account", subject=settings.engine.username, act=self._account),
            *(
                Look(area="target", subject=target.name, act=partial(self._target, target))
                for target in settings.target
            ),
            Look(area="mover", subject="all hosts", act=self._movers),
        ]
        return self._looks.at_all(looks)

    def _state(self) -> Iterator[Finding]:
        """The folder of the controller's data: writable, with space, on a disk of its own, and sound."""
        folder = self._around.settings.state_dir
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            reason = f"the state folder {folder} is not there or cannot be written by this user"
            raise ConfigError(path="`state_dir`", reason=reason)
        for path in sorted(folder.glob("*.sqlite")):
            _require_sound(path)
        space = os.statvfs(folder)
        free = space.f_bavail * space.f_frsize
        little = free < _LITTLE
        told = f"The folder {folder} can be written, its data bases are sound, and {human_size(free)} are free"
        verdict, todo = (Verdict.WARNING, ", which is little: free some") if little else (Verdict.OK, "")
        yield Finding(area="controller", subject="state", verdict=verdict, text=f"{told}{todo}.")

    def _database(self) -> Iterator[Finding]:
        """The server that several controllers share, by the settings alone: it answers and lets them in."""
        url = Databases.of(self._around.settings).store
        base = sa.create_engine(url, connect_args={"connect_timeout": _CONNECT_TIMEOUT})
        try:
            with base.connect() as connection:
                version = connection.scalar(sa.text("SHOW server_version"))
        except sa.exc.DBAPIError as error:
            raise DatabaseUnreachable(reason=" ".join(str(error.orig).split())) from error
        finally:
            base.dispose()
        text = f"PostgreSQL {version} answers and lets the controller in."
        yield Finding(area="controller", subject="data base", verdict=Verdict.OK, text=text)

    def _manager(self) -> Iterator[Finding]:
        version = self._around.engine.test()
        if _numbers(version) < OLDEST_ENGINE:
            raise EngineTooOld(found=version)
        hosts = self._around.engine.hosts()
        up = sum(host.status == "up" for host in hosts)
        url = self._around.settings.engine.url
        text = f"It answers, has version {version}, and {up} of its {len(hosts)} hosts are up."
        yield Finding(area="manager", subject=url, verdict=Verdict.OK, text=text)

    def _account(self) -> Iterator[Finding]:
        name = self._around.settings.engine.username
        token = self._around.log_in()
        if self._around.access.authenticate(token).admin:
            text = "It has the role SuperUser, which is enough, and more than it needs: see the installation guide."
            yield Finding(area="account", subject=name, verdict=Verdict.OK, text=text)
            return
        vms = self._around.engine.vms()
        if not vms:
            text = "Its rights cannot be looked at before the Manager has a VM; make one and look again."
            yield Finding(area="account", subject=name, verdict=Verdict.WARNING, text=text)
            return
        has = self._around.access.permits(token, vms[0].id)
        if missing := sorted(set(PERMITS) - has):
            raise PermitsMissing(account=name, missing=", ".join(missing))
        text = "It has all permits that it needs."
        yield Finding(area="account", subject=name, verdict=Verdict.OK, text=text)

    @staticmethod
    def _target(target: TargetConfig) -> Iterator[Finding]:
        yield probe(Mounts((target,)), target.name)

    def _movers(self) -> Iterable[Finding]:
        """The movers of hosts that are up: they answer, are of this version, have the time, find what they need."""
        hosts = [host for host in self._around.engine.hosts() if host.status == "up"]
        if not hosts:
            text = "No host of the Manager is up; activate one."
            return [Finding(area="mover", subject="all hosts", verdict=Verdict.FAILED, text=text)]
        looks = [Look(area="mover", subject=host.name, act=partial(self._mover, host)) for host in hosts]
        return self._at_hosts.at_all(looks)

    def _mover(self, host: Host) -> Iterator[Finding]:
        mover: Mover = self._around.movers.at(host.id)
        before = time.time()
        health = mover.health()
        verdict, told = Verdict.OK, f"It answers and has version {health.version}"
        if health.version != __version__:
            verdict = Verdict.WARNING
            told += f"; the controller has {__version__}: bring both to the same"
        skew = _skew(health.time, before, time.time())
        if skew > _SKEW:
            verdict = Verdict.WARNING
            told += f"; its clock is {skew:.0f} s off: set both with a time service such as chrony"
        yield Finding(area="mover", subject=host.name, verdict=verdict, text=f"{told}.")
        for found in mover.check():  # signed: a wrong key or a clock that is far off is told here
            yield Finding(
                area=found.area, subject=f"{host.name}: {found.subject}", verdict=found.verdict, text=found.text
            )


@contextmanager
def inspection_of(settings: ControllerConfig) -> Iterator[Inspection]:
    """The inspection of an installation by its settings alone, whether its controller runs or not."""
    pki = Pki(folder=settings.pki_dir)
    with ExitStack() as stack:
        engine = stack.enter_context(OvirtEngine(settings.engine))
        rights = OvirtAccess(settings.engine.url, settings.engine.ca_file)
        stack.callback(rights.close)
        key = load_private_key(pki.order_key)
        movers = MoverDirectory(engine, config=settings, ca_file=pki.ca_cert, key=key)
        stack.callback(movers.close)
        yield Inspection(
            Surroundings(settings=settings, engine=engine, access=rights, movers=movers, log_in=account_login(settings))
        )


def account_login(settings: ControllerConfig) -> Callable[[], str]:
    """How the service account logs in."""

    def log_in() -> str:
        account = settings.engine
        try:
            password = account.password_file.read_text().rstrip("\n")
        except OSError as error:
            raise ConfigError(path=account.password_file, reason=error.strerror) from error
        return access.login(account.url, account.ca_file, username=account.username, password=password)

    return log_in


def certificate(path: Path) -> Finding:
    """How a certificate of the controller is; raises `CertificateUnfit`."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        reason = str(error.strerror)
        raise CertificateUnfit(path=path, reason=reason, todo="make it with `overkeep admin init`") from error
    except ValueError as error:
        raise CertificateUnfit(path=path, reason="it is damaged", todo="put back a copy of it") from error
    left = found.not_valid_after_utc - utc_now()
    until = f"{found.not_valid_after_utc:%Y-%m-%d}"
    if left <= dt.timedelta():
        raise CertificateUnfit(
            path=path, reason=f"it expired on {until}", todo="make a new one and restart the service"
        )
    if found.not_valid_before_utc > utc_now():
        begins = f"it is valid only from {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
        raise CertificateUnfit(path=path, reason=begins, todo="set the clock of this machine")
    verdict, todo = (Verdict.WARNING, ": make a new one before that") if left < _SOON else (Verdict.OK, "")
    return Finding(area="certificate", subject=path.name, verdict=verdict, text=f"It is valid until {until}{todo}.")


def _certificates(path: Path) -> Iterator[Finding]:
    yield certificate(path)


def order_key(path: Path) -> Finding:
    """How the key that signs orders is: there, and read by nobody else."""
    load_private_key(path)
    if path.stat().st_mode & 0o077:
        text = f"Others can read it; run `chmod 600 {path}`."
        return Finding(area="certificate", subject=path.name, verdict=Verdict.FAILED, text=text)
    text = "It is there, and read by its owner alone."
    return Finding(area="certificate", subject=path.name, verdict=Verdict.OK, text=text)


def _require_sound(path: Path) -> None:
    try:
        base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            (word,) = base.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            base.close()
    except sqlite3.Error as error:
        raise DatabaseDamaged(path=path, reason=error) from error
    if word != "ok":
        raise DatabaseDamaged(path=path, reason=word)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())


def _skew(there: float | None, before: float, after: float) -> float:
    """How many seconds a clock is certainly off; 0 when it does not tell, as older movers do not."""
    if there is None:
        return 0.0
    return max(0.0, before - there, there - after)
