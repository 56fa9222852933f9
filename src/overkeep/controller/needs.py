# SPDX-License-Identifier: GPL-3.0-or-later
"""What the work on a VM loads: its host, the storage domains of its disks, the backup target, and the total."""

from __future__ import annotations

from overkeep.model import admission
from overkeep.model.admission import TOTAL
from overkeep.model.inventory import Place
from overkeep.model.restore import Targets


def backup_needs(target: str, place: Place | None, *, workload_id: str = "") -> tuple[str, ...]:
    """What the backup of a VM needs; of one whose place is not known, what every backup does.

    `workload_id` is given when only so many VMs of the workload are backed up at once: what needs the same is in one
    line, and so there are not more lines than there must be.
    """
    always = (TOTAL, admission.target(target), *((admission.workload(workload_id),) if workload_id else ()))
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
