# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the services, read from one TOML file each and checked as a whole."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from overkeep.errors import ConfigError

DEFAULT_MOUNT_OPTIONS = "vers=3,hard,nolock,proto=tcp"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetConfig(_Section):
    """A backup target: an NFS export and where this machine mounts it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    source: str = Field(description="what mount(8) takes: server:/export")
    mountpoint: Path
    options: str = DEFAULT_MOUNT_OPTIONS
    mount_command: tuple[str, ...] = Field(
        default=("mount", "-t", "nfs"),
        description="called with `-o OPTIONS SOURCE MOUNTPOINT` appended",
    )


class EngineConfig(_Section):
    """The Manager and the service account used for jobs."""

    url: str = Field(description="https://engine.example/ovirt-engine/api")
    ca_file: Path
    username: str = Field(description="user@profile")
    password_file: Path


class MoverAddress(_Section):
    """Where the mover of a host listens, when it is not the host's own address and the default port."""

    host: str = Field(description="name of the host in the Manager")
    url: str = Field(description="https://address:port")


class ControllerConfig(_Section):
    """Settings of the controller, `/etc/overkeep/controller.toml`."""

    listen: str = "127.0.0.1"
    port: int = 8790
    state_dir: Path = Path("/var/lib/overkeep")
    pki_dir: Path = Path("/etc/overkeep/pki")
    log_level: str = "INFO"
    database: str = Field(default="", description="SQLAlchemy URL; empty: SQLite in state_dir")
    engine: EngineConfig
    target: tuple[TargetConfig, ...] = Field(min_length=1)
    mover: tuple[MoverAddress, ...] = ()
    mover_port: int = 54325
    order_lease: float = Field(default=60, description="seconds without contact after which a mover stops")
    parallel_vms: int = Field(default=4, ge=1)


class MoverConfig(_Section):
    """Settings of a data mover, `/etc/overkeep/mover.toml`."""

    host: str = Field(description="name of this host in the Manager; orders for another host are refused")
    listen: str = "0.0.0.0"  # noqa: S104 - the controller reaches the mover over the network; TLS and signatures guard it
    port: int = 54325
    state_dir: Path = Path("/var/lib/overkeep-mover")
    log_level: str = "INFO"
    cert_file: Path = Path("/etc/overkeep/mover/cert.pem")
    key_file: Path = Path("/etc/overkeep/mover/key.pem")
    controller_key_file: Path = Path("/etc/overkeep/mover/controller.pub")
    imageio_control_socket: str = "/run/ovirt-imageio/sock"
    imageio_local_socket: str = "\\0/org/ovirt/imageio"
    target: tuple[TargetConfig, ...] = Field(min_length=1)
    orders_at_once: int = Field(default=4, ge=1)


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
