# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the services, read from one TOML file each and checked as a whole."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from overkeep.errors import ConfigError

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_ADDRESS = re.compile(r"\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")  # as mount(8) takes them
MOUNT_OPTIONS = {"nfs3": "vers=3,hard,nolock,proto=tcp", "nfs4": "vers=4,hard,proto=tcp"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetConfig(_Section):
    """A backup target: an NFS export and where this machine mounts it, or a folder that is there already."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="name of the target in orders; the same on the controller and on all hosts",
    )
    kind: Literal["nfs3", "nfs4", "path"] = Field(
        default="nfs3",
        description="`nfs3` and `nfs4` are mounted; `path` is a folder of this machine that is taken as it is",
    )
    source: str = Field(default="", description="what mount(8) takes: server:/export; needed unless `kind` is `path`")
    addresses: tuple[str, ...] = Field(
        default=(),
        description="further addresses of the server in `source`, all of the same export: each host uses "
        "one of them all, and the next one when that does not answer",
    )
    mountpoint: Path = Field(
        description="folder of this machine to mount it at, made when it is not there; for `path`, the folder itself",
    )
    options: str = Field(
        default="",
        description="mount options, when they are not those of `kind`; `hard`, `soft`, `proto` and `vers` are compared "
        "with those in force",
    )
    mount_command: tuple[str, ...] = Field(
        default=("mount", "-t", "nfs"),
        description="called with `-o OPTIONS SOURCE MOUNTPOINT` appended",
    )
    unmount_command: tuple[str, ...] = Field(
        default=("umount", "-l"),
        description="called with MOUNTPOINT appended, when one of several addresses does not answer any more",
    )

    @property
    def mounted(self) -> bool:
        """Whether it is mounted, by us or by somebody else."""
        return self.kind != "path"

    @property
    def mount_options(self) -> str:
        """The options it is mounted with."""
        return self.options or MOUNT_OPTIONS[self.kind]

    @property
    def sources(self) -> tuple[str, ...]:
        """All that mount(8) may be given: the export at each address of its server."""
        server, colon, export = self.source.rpartition(":/")
        return (self.source, *(f"{address}{colon}{export}" for address in self.addresses if address != server))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.mountpoint.is_absolute():
            raise ValueError(f"target {self.name} needs a `mountpoint` that begins with /")
        if self.mounted and not self.source:
            raise ValueError(f"target {self.name} needs `source`")
        if not self.mounted and (self.source or self.options or self.addresses):
            raise ValueError(f"target {self.name} is a path, which has neither `source` nor `options` nor `addresses`")
        for address in self.addresses:
            if not _ADDRESS.fullmatch(address):
                raise ValueError(f"{address!r} is no address: give a name, an IPv4 address, or IPv6 in brackets")
        if self.addresses and ":/" not in self.source:
            raise ValueError(f"target {self.name} has `addresses` and needs a `source` of the form server:/export")
        return self


class WatchedTarget(TargetConfig):
    """A backup target with the marks at which the controller warns and stops."""

    alarm_percent: float = Field(
        default=85, ge=1, le=100, description="used space in percent from which on the controller warns"
    )
    stop_percent: float = Field(
        default=95, ge=1, le=100, description="used space in percent from which on no backup to it begins"
    )
    reserve: int = Field(default=0, ge=0, description="bytes; with fewer free no backup to it begins, either")


_Target = TypeVar("_Target", bound=TargetConfig)


def _distinct(targets: tuple[_Target, ...]) -> tuple[_Target, ...]:
    for what in ("name", "mountpoint"):
        values = [getattr(target, what) for target in targets]
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise ValueError(f"two targets have the {what} {twice[0]}")
    return targets


class EngineConfig(_Section):
    """The Manager and the service account used for jobs."""

    url: str = Field(description="https://engine.example/ovirt-engine/api")
    ca_file: Path = Field(description="PEM file with the CA certificate of the Manager")
    username: str = Field(description="the service account: user@profile")
    password_file: Path = Field(description="file with its password; read at each log-in")


class MoverAddress(_Section):
    """Where the mover of a host listens, when it is not the host's own address and the default port."""

    host: str = Field(description="name of the host in the Manager")
    url: str = Field(description="https://address:port")


class EventsConfig(_Section):
    """How long events are kept."""

    days: int = Field(default=90, ge=1, le=3650, description="events older than this are removed")
    most: int = Field(
        default=500_000, ge=1000, description="of more than this, the oldest are removed; a thousand need about 0.4 MB"
    )


class ControllerConfig(_Section):
    """Settings of the controller, `/etc/overkeep/controller.toml`."""

    listen: str = Field(default="127.0.0.1", description="address that the API listens at; `0.0.0.0` for all")
    port: int = Field(default=8790, description="TCP port of the API (HTTPS)")
    state_dir: Path = Field(
        default=Path("/var/lib/overkeep"), description="data bases and lock of the controller; on a local disk"
    )
    pki_dir: Path = Field(default=Path("/etc/overkeep/pki"), description="what `overkeep admin init` made")
    log_level: LogLevel = Field(default="INFO", description="how much is logged")
    engine: EngineConfig = Field(description="the Manager")
    target: Annotated[tuple[WatchedTarget, ...], AfterValidator(_distinct)] = Field(
        min_length=1, description="backup targets; workloads that name none are backed up to the first one"
    )
    mover: tuple[MoverAddress, ...] = Field(
        default=(), description="movers that listen elsewhere than at the address of their host and `mover_port`"
    )
    mover_port: int = Field(default=54325, description="TCP port of the movers")
    database: str = Field(
        default="",
        pattern=r"^(postgresql://[^\s]+)?$",
        description="`postgresql://user@host:5432/name` for several controllers; empty: SQLite in `state_dir`, for one",
    )
    database_password_file: Path | None = Field(
        default=None, description="file with the password of that user; read at the start"
    )
    order_lease: float = Field(
        default=60, ge=10, le=3600, description="seconds without contact after which a mover stops"
    )
    events: EventsConfig = Field(default_factory=EventsConfig, description="how long events are kept")
    parallel_vms: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="VMs worked on at the same time, over all jobs, until `overkeep limit set total` says otherwise",
    )


class MoverConfig(_Section):
    """Settings of a data mover, `/etc/overkeep/mover.toml`."""

    host: str = Field(description="name of this host in the Manager; orders for another host are refused")
    listen: str = Field(
        default="0.0.0.0",  # noqa: S104 - the controller reaches it over the network; TLS and signatures guard it
        description="address that it listens at",
    )
    port: int = Field(default=54325, description="TCP port (HTTPS)")
    state_dir: Path = Field(default=Path("/var/lib/overkeep-mover"), description="its table of orders; on a local disk")
    log_level: LogLevel = Field(default="INFO", description="how much is logged")
    cert_file: Path = Field(default=Path("/etc/overkeep/mover/cert.pem"), description="its certificate")
    key_file: Path = Field(default=Path("/etc/overkeep/mover/key.pem"), description="key of the certificate")
    controller_key_file: Path = Field(
        default=Path("/etc/overkeep/mover/controller.pub"), description="public key that orders must be signed with"
    )
    imageio_control_socket: str = Field(
        default="/run/ovirt-imageio/sock",
        description="control service of the host's ovirt-imageio; `\\0` at the front for an abstract socket",
    )
    imageio_local_socket: str = Field(
        default="\\0/org/ovirt/imageio", description="images service of the host's ovirt-imageio, written likewise"
    )
    target: Annotated[tuple[TargetConfig, ...], AfterValidator(_distinct)] = Field(
        min_length=1, description="backup targets that orders may name"
    )
    orders_at_once: int = Field(default=4, ge=1, description="copies at the same time; 64 more orders may wait")


_Config = TypeVar("_Config", bound=BaseModel)


def load(kind: type[_Config], path: Path) -> _Config:
    """Read the TOML file at `path` as settings of `kind`; raise `ConfigError` with every fault in it."""
    try:
        return kind.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(path=path, reason=error.strerror) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path=path, reason=str(error)) from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors())
        raise ConfigError(path=path, reason=faults) from error
