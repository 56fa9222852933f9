# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of the REST API about backup targets."""

from __future__ import annotations

import datetime as dt

from pydantic import Field

from overkeep.api.documents import Document
from overkeep.model.capacity import Fill
from overkeep.units import GIB, MIB


class ProbeIn(Document):
    """From where a target is tried out, and how: `host` is the name of a host, empty for the controller itself.

    At most `size` bytes are written and read, each for at most `seconds`.
    """

    host: str = Field(default="", max_length=255)
    size: int = Field(default=64 * MIB, ge=MIB, le=GIB)
    seconds: float = Field(default=10.0, gt=0, le=15.0)


class ProbeOut(Document):
    """What trying a target out from a host showed; `host` is empty for the controller.

    `error` says why it failed and `code` is its stable name; both are empty when it did not. What was not learnt is
    null. `source` is what is mounted there, `repository` the id that it holds, `owner` whom a new file belonged to
    (36:36 when all is well), `direct` whether O_DIRECT works, `synced_ms` how long a small write took until it was
    durable; speeds are bytes a second, of `size` bytes.
    """

    target: str
    host: str
    time: str
    ok: bool
    code: str
    error: str
    source: str | None = None
    repository: str | None = None
    owner: str | None = None
    owned: bool | None = None
    direct: bool | None = None
    synced_ms: float | None = None
    size: int | None = None
    write_speed: int | None = None
    read_speed: int | None = None


class TargetOut(Document):
    """A backup target; `repository` is the id of what belongs there, empty before its first use.

    `found` is the id of the repository that is there now, empty when there is none, null when that cannot be seen.
    `error` says why it cannot be used now; `code` is its stable name. Both are empty when it can be used. `source` and
    `mountpoint` are those of the controller. `size`, `used`, `free` and `grows_a_day` are bytes, null while they are
    unknown. At `full` no backup begins. `listed`: when the restore points on it were last read whole, null for never;
    `listing`: they are being read now or will be at once; `listing_error`: why the last reading ended early. `probes`
    are the last ones, one for each host from which it was tried out.
    """

    name: str
    kind: str
    default: bool
    repository: str
    found: str | None
    ok: bool
    code: str
    error: str
    source: str
    mountpoint: str
    size: int | None
    used: int | None
    free: int | None
    fill: Fill | None
    grows_a_day: int | None
    days_until_full: float | None
    listed: dt.datetime | None
    listing: bool
    listing_error: str
    probes: list[ProbeOut]


class AcceptIn(Document):
    """What an administrator has seen behind a target: the id of a repository, or nothing for none."""

    found: str
