# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine 4.5 is told by a host about itself, as far as it is the same on all hosts of the lab."""

from __future__ import annotations

import os
import platform

from ovirtlab.engine.entities.infrastructure import Cluster, HostEntity
from ovirtlab.engine.rest.documents import Entity, Items, Value

VDSM = Entity("version", {"build": 5, "full_version": "vdsm-4.50.5.1-1.el9", "major": 4, "minor": 50, "revision": 1})
_LIBVIRT: dict[str, Value] = {"build": 0, "full_version": "libvirt-9.5.0-7.el9", "major": 9, "minor": 5, "revision": 0}
_MEGAHERTZ = 2200.0


def facts(host: HostEntity, cluster: Cluster) -> dict[str, Value]:
    """Fields of a host, by name."""
    sources = Items("supported_rng_source", ["hwrng", "random"])
    return {
        "auto_numa_status": "unknown",
        "certificate": Entity("certificate", {"organization": "lab", "subject": f"O=lab,CN={host.address}"}),
        "cpu": _cpu(cluster),
        "device_passthrough": Entity("device_passthrough", {"enabled": False}),
        "hardware_information": Entity(
            "hardware_information",
            {
                "family": "oVirt lab",
                "manufacturer": "oVirt",
                "product_name": "lab host",
                "serial_number": host.hw_id,
                "supported_rng_sources": sources,
                "uuid": host.hw_id,
                "version": "1",
            },
        ),
        "iscsi": Entity("iscsi", {"initiator": f"iqn.1994-05.com.redhat:{host.hw_id.replace('-', '')[:12]}"}),
        "kdump_status": "unknown",
        "ksm": Entity("ksm", {"enabled": False}),
        "libvirt_version": Entity("libvirt_version", dict(_LIBVIRT)),
        "numa_supported": False,
        "os": Entity(
            "os",
            {
                "custom_kernel_cmdline": "",
                "reported_kernel_cmdline": "",
                "type": "RHEL",
                "version": Entity("version", {"full_version": "9 - 1.el9", "major": 9}),
            },
        ),
        "reinstallation_required": False,
        "se_linux": Entity("se_linux", {"mode": "disabled"}),
        "transparent_hugepages": Entity("transparent_hugepages", {"enabled": True}),
        "version": VDSM,
    }


def _cpu(cluster: Cluster) -> Entity:
    """The machine that the lab runs on, which emulates the cluster's type of CPU."""
    topology = Entity("topology", {"cores": os.cpu_count() or 1, "sockets": 1, "threads": 1})
    name = platform.processor() or platform.machine()
    return Entity("cpu", {"name": name, "speed": _MEGAHERTZ, "topology": topology, "type": cluster.cpu_type})
