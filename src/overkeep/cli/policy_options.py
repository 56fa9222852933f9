# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that make up a policy, written once for the commands that take them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import typer

from overkeep.api.policy_documents import CopyingDoc, PolicyIn, RetentionDoc, ScheduleDoc
from overkeep.errors import BadRequest
from overkeep.model.points import BackupKind
from overkeep.units import read_size

_VERIFY = {"none": 0.0, "full": 1.0}
_PERCENT = 100
_FULL = {"never": None, "always": 0}


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """What was given of a policy on the command line; None is what was not."""

    description: Annotated[str | None, typer.Option(help="For people.")] = None
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            help="When to run: `daily at 22:00`, `every 4 hours`, `weekly on mon,thu at 22:00`, "
            "`monthly on 1,last at 22:00`, or five fields of cron; several times."
        ),
    ] = None
    zone: Annotated[str | None, typer.Option(help="Time zone of schedules and retention, as Europe/Berlin.")] = None
    start: Annotated[str | None, typer.Option(help="First day of the schedules, as 2026-12-31.")] = None
    end: Annotated[str | None, typer.Option(help="Last day of the schedules.")] = None
    window: Annotated[
        list[str] | None, typer.Option(help="Runs begin only in it, as `mon-fri 20:00-06:00`; several times.")
    ] = None
    blackout: Annotated[list[str] | None, typer.Option(help="No run begins in it; several times.")] = None
    keep_last: Annotated[int | None, typer.Option(help="Keep so many of the newest points.")] = None
    keep_days: Annotated[int | None, typer.Option(help="Keep all points younger than so many days.")] = None
    keep_hourly: Annotated[int | None, typer.Option(help="Keep the newest point of so many hours.")] = None
    keep_daily: Annotated[int | None, typer.Option(help="Keep the newest point of so many days.")] = None
    keep_weekly: Annotated[int | None, typer.Option(help="Keep the newest point of so many weeks.")] = None
    keep_monthly: Annotated[int | None, typer.Option(help="Keep the newest point of so many months.")] = None
    keep_yearly: Annotated[int | None, typer.Option(help="Keep the newest point of so many years.")] = None
    kind: Annotated[
        BackupKind | None,
        typer.Option(
            help="Of backups in the Manager: `legacy` locks the VM and leaves nothing, `hybrid` reads a snapshot and "
            "leaves the VM unlocked."
        ),
    ] = None
    full_every: Annotated[
        str | None, typer.Option(help="A full backup after so many incrementals, `never` or `always`.")
    ] = None
    longest_chain: Annotated[int | None, typer.Option(help="Images that a chain may have before a full backup.")] = None
    retries: Annotated[int | None, typer.Option(help="Tries after a scheduled run that failed.")] = None
    retry_wait: Annotated[int | None, typer.Option(help="Minutes before the first of them; it doubles.")] = None
    bandwidth: Annotated[int | None, typer.Option(help="Bytes a second for each disk; 0 for no limit.")] = None
    compression: Annotated[str | None, typer.Option(help="Of images: `none` or `zstd`.")] = None
    level: Annotated[int | None, typer.Option(help="Of compression, 1 to 19.")] = None
    cluster_size: Annotated[str | None, typer.Option(help="Of images: 64K, 128K and so on up to 2M.")] = None
    read_back: Annotated[float | None, typer.Option(help="Share of new images that is read again, 0 to 1.")] = None

    verify: Annotated[
        str | None, typer.Option(help="How much of each new point is read and compared: `none`, `full`, or as 5%.")
    ] = None

    def applied(self, before: PolicyIn) -> PolicyIn:
        """The policy with what was given in place of what was."""
        simple = _given(self, "description", "longest_chain", "retries", "retry_wait")
        if self.kind is not None:
            simple["backup_kind"] = self.kind
        if self.full_every is not None:
            simple["full_every"] = _full_every(self.full_every)
        if self.verify is not None:
            simple["verify"] = _share(self.verify)
        keep = {name.removeprefix("keep_"): value for name, value in vars(self).items() if name.startswith("keep_")}
        keep["zone"] = self.zone
        parts = {
            "schedules": self._schedules(before),
            "retention": _changed(before.retention, {name: value for name, value in keep.items() if value is not None}),
            "copying": _changed(before.copying, self._copying()),
        }
        return PolicyIn.model_validate({**before.model_dump(), **simple, **parts})

    def _copying(self) -> dict[str, Any]:
        given = _given(self, *CopyingDoc.model_fields)
        if self.cluster_size is not None:
            given["cluster_size"] = _size(self.cluster_size, "cluster-size")
        return given

    def _schedules(self, before: PolicyIn) -> list[dict[str, Any]]:
        """The schedules; options without `--schedule` change those that there are."""
        shared = _given(self, "zone")
        for option, field in (("window", "windows"), ("blackout", "blackouts")):
            if (value := getattr(self, option)) is not None:
                shared[field] = tuple(text for text in value if text)
        for name in ("start", "end"):
            if (value := getattr(self, name)) is not None:
                shared[name] = _date(value, name)
        if self.schedule is None:
            return [_changed(schedule, shared) for schedule in before.schedules]
        zone = before.schedules[0].zone if before.schedules else before.retention.zone
        return [_changed(ScheduleDoc(when=when, zone=zone), shared) for when in self.schedule]


def _given(options: PolicyOptions, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _changed(document: ScheduleDoc | RetentionDoc | CopyingDoc, values: dict[str, Any]) -> dict[str, Any]:
    return {**document.model_dump(), **values}


def _full_every(text: str) -> int | None:
    if text in _FULL:
        return _FULL[text]
    if text.isdecimal():
        return int(text)
    raise BadRequest(what=f"--full-every {text} cannot be", todo="give a number, never or always")


def _share(text: str) -> float:
    if text in _VERIFY:
        return _VERIFY[text]
    number = text.removesuffix("%")
    if text.endswith("%") and number.replace(".", "", 1).isdecimal() and 0 < float(number) <= _PERCENT:
        return float(number) / _PERCENT
    raise BadRequest(what=f"--verify {text} cannot be", todo="give none, full, or a percentage as 5%")


def _size(text: str, name: str) -> int:
    try:
        return read_size(text)
    except ValueError as error:
        raise BadRequest(what=f"--{name} {text} is no size", todo="write it as 64K or 1M") from error


def _date(text: str, name: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise BadRequest(what=f"--{name} {text} is no day", todo="write it as 2026-12-31") from error


def with_policy_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` all options of a policy, in place of its parameter `options`."""
    names = [field.name for field in dataclasses.fields(PolicyOptions)]

    def run(**arguments: Any) -> None:
        options = PolicyOptions(**{name: arguments.pop(name) for name in names})
        command(options=options, **arguments)

    hints = get_type_hints(command, include_extras=True)
    kinds = get_type_hints(PolicyOptions, include_extras=True)
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints.get(p.name, kinds.get(p.name)))
        for p in (*own, *added)
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what Typer reads
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run
