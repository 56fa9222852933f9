# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of the REST API, and how the controller's values become them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from overkeep.controller.events import Event, Level
from overkeep.model.findings import Verdict

if TYPE_CHECKING:  # the command line reads these documents too, and should not wait for the whole controller
    from overkeep.controller.background.janitor import Leftover
    from overkeep.controller.service import MoverHealth
    from overkeep.controller.targets.configured import Away

Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f]+$")]


class Document(BaseModel):
    """What all documents have in common: nothing but what is declared, and nothing is changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class AwayOut(Document):
    """A target that cannot be read now: what lies on it is missing in the answer."""

    target: str
    code: str
    error: str


class FailureOut(Document):
    """Why something failed; both empty when nothing did."""

    code: str
    text: str


class EventOut(Document):
    """Something that happened: one sentence, what it is about (empty where that does not apply), and more in `fields`.

    `seq` rises with each event; `kind` is stable.
    """

    seq: int
    time: dt.datetime
    kind: str
    level: Level
    text: str
    job_id: str
    workload_id: str
    vm_id: str
    vm_name: str
    point_id: str
    target: str
    host: str
    caller: str
    fields: dict[str, Any]


class LoadOut(Document):
    """How many orders of a mover run and wait, and how many may run at once."""

    at_once: int
    running: int
    waiting: int


class MoverOut(Document):
    """Whether the mover of a host answers, and what it has to do; an older one does not say."""

    host: str
    host_status: str
    ok: bool
    version: str
    error: str
    load: LoadOut | None = None


class FindingOut(Document):
    """How one part of the installation is: one sentence, which says what to do when it is not well."""

    area: str
    subject: str
    verdict: Verdict
    text: str


class LeftoverOut(Document):
    """Something of ours that is open in the Manager without a living job."""

    kind: str
    ref: str
    job_id: str
    vm_id: str
    disk_id: str


class HealthOut(Document):
    """The controller answers."""

    version: str
    status: str


class FaultOut(Document):
    """What is wrong with one part of a request: in its `body`, `query`, `path` or `header`."""

    place: str
    name: str
    detail: str


class ProblemOut(BaseModel):
    """A problem document (RFC 9457); `code` is stable, `retry` says whether the same call may succeed later.

    Readers ignore members that they do not know.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    retry: bool
    params: dict[str, str] = {}
    errors: tuple[FaultOut, ...] = ()


def event_out(event: Event) -> EventOut:
    """The document of an event."""
    return EventOut(**vars(event.about), **{name: value for name, value in vars(event).items() if name != "about"})


def away_out(away: Away) -> AwayOut:
    """The document of a target that could not be read."""
    return AwayOut(target=away.target, code=away.error.code, error=away.error.message)


def mover_out(mover: MoverHealth) -> MoverOut:
    """The document of a mover."""
    return MoverOut.model_validate(mover)


def leftover_out(leftover: Leftover) -> LeftoverOut:
    """The document of a leftover."""
    return LeftoverOut.model_validate(leftover)
