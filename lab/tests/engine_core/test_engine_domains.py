# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage domains in maintenance and as master; VMs that cannot be suspended."""

from __future__ import annotations

from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types


def attached(system: Any) -> Any:
    data_center = system.data_centers_service().list()[0]
    return system.data_centers_service().data_center_service(data_center.id)


def test_a_domain_goes_into_maintenance_and_back(system: Any, lab: Any) -> None:
    domain = system.storage_domains_service().list(search="name=data2")[0]
    service = attached(system).storage_domains_service().storage_domain_service(domain.id)
    service.deactivate()
    lab.wait(lambda: service.get().status == types.StorageDomainStatus.MAINTENANCE)
    with pytest.raises(ovirtsdk4.Error, match="status is Maintenance"):
        attached(system).set_master(storage_domain=domain)
    service.activate()
    lab.wait(lambda: service.get().status == types.StorageDomainStatus.ACTIVE)
    attached(system).set_master(storage_domain=domain)
    assert [item.name for item in system.storage_domains_service().list() if item.master] == ["data2"]


def test_a_domain_in_use_stays_active(system: Any, lab: Any) -> None:
    lab.engine.state.vms[lab.vm_id("web")].status = "up"
    domain = system.storage_domains_service().list(search="name=data")[0]
    service = attached(system).storage_domains_service().storage_domain_service(domain.id)
    with pytest.raises(ovirtsdk4.Error, match="were detected"):
        service.deactivate()


def test_a_domain_is_changed(system: Any) -> None:
    first, second = system.storage_domains_service().list()
    service = system.storage_domains_service().storage_domain_service(first.id)
    changed = service.update(types.StorageDomain(comment="ours", warning_low_space_indicator=7, wipe_after_delete=True))
    assert (changed.comment, changed.warning_low_space_indicator, changed.wipe_after_delete) == ("ours", 7, True)
    with pytest.raises(ovirtsdk4.Error, match="already in use"):
        service.update(types.StorageDomain(name=second.name))
