# SPDX-License-Identifier: GPL-3.0-or-later
"""What the work on a VM loads: its host, the storage domains of its disks, the backup target, and the total."""

from __future__ import annotations

from collections.abc import Iterable

from overkeep.model import admission
from overkeep.model.admission import TOTAL
from overkeep.model.inventory import Place
from overkeep.model.restore import Targets


def backup_needs(target: str, place: Place | None, *, more: Iterable[str] = ()) -> tuple[str, ...]:
    """What the backup of a VM needs; of one whose place is not known, what every backup does.

    `more` is what its run asks for, the workload or the group: only where it must be, for what needs the same is in one
    line, and there should be few.
    """
    always = (TOTAL, admission.target(target), *more)
    if place is None:
        return always
    hosts = (admission.host(place.host),) if place.host else ()
    return (*always, *hosts, *map(admission.domain, place.domains))


def restore_needs(target: str, where: Targets) -> tuple[str, ...]:
    """What a restore needs; the Manager chooses the hosts of its uploads only when it opens them."""
    domains = (admission.domain(domain.name) for domain in where.storage_domains)
    return (TOTAL, admission.target(target), *domains)


def removal_needs(target: str) -> tuple[str, ...]:
    """What merging the images of a removed point needs."""
    return (TOTAL, admission.target(target))


def verification_needs(target: str) -> tuple[str, ...]:
    """What a check of points needs; whichever mover is least loaded does it."""
    return (TOTAL, admission.target(target))
