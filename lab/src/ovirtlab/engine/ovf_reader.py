# SPDX-License-Identifier: GPL-3.0-or-later
"""An OVF text of the engine's dialect, read into values; what cannot be read is a 400 fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree  # type: ignore[import-untyped]

from ovirtlab.engine.faults import BadRequest
from ovirtlab.engine.ovf import BIOS_TYPES, DISK_INTERFACES, NIC_TYPES, OVF, RASD, VM_TYPES, XSI

_DISK_NAMES = {value: name for name, value in DISK_INTERFACES.items()}
_NIC_NAMES = {value: name for name, value in NIC_TYPES.items()}
_BIOS_NAMES = {value: name for name, value in BIOS_TYPES.items()}
_VM_TYPE_NAMES = {value: name for name, value in VM_TYPES.items()}
_NAMESPACES = {"ovf": OVF, "rasd": RASD, "xsi": XSI}


@dataclass(frozen=True, kw_only=True)
class OvfDisk:
    """A disk of the OVF; its size is not kept, as OVF rounds it to GiB."""

    id: str
    image_id: str
    alias: str
    interface: str
    bootable: bool
    read_only: bool
    pass_discard: bool
    incremental: bool
    active: bool


@dataclass(frozen=True, kw_only=True)
class OvfNic:
    id: str
    name: str
    mac: str
    interface: str
    network: str
    profile: str
    plugged: bool
    linked: bool


@dataclass(frozen=True, kw_only=True)
class OvfVm:
    """What an OVF says of a VM; `memory` in bytes."""

    id: str
    name: str
    description: str
    comment: str
    memory: int
    sockets: int
    cores: int
    threads: int
    os_type: str
    os_kernel: str
    os_initrd: str
    os_cmdline: str
    bios_type: str
    vm_type: str
    machine: str
    cluster: str
    level: tuple[int, int] | None
    delete_protected: bool
    custom_properties: dict[str, str]
    disks: tuple[OvfDisk, ...]
    nics: tuple[OvfNic, ...]


def read(text: str) -> OvfVm:
    """Read an OVF; anything that is not one is refused as the engine refuses it."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        root = etree.fromstring(text.encode(), parser)
        _check_prefixes(root)
        return _vm(root)
    except (etree.XMLSyntaxError, ValueError, KeyError, _Missing) as error:
        raise BadRequest(f"[Cannot import VM. The OVF configuration could not be parsed: {error}]") from None


class _Missing(Exception):
    """A part of the OVF that must be there is not."""


def _check_prefixes(root: etree._Element) -> None:
    """The engine reads `ovf:id` and `xsi:type` by these very prefixes, whatever namespaces they stand for."""
    for prefix in ("ovf", "rasd", "xsi"):
        if prefix not in root.nsmap:
            raise _Missing(f"the prefix {prefix} is not declared")


def _vm(root: etree._Element) -> OvfVm:
    content = root.find("Content")
    if content is None:
        raise _Missing("there is no Content element")
    system = _section(content, "OperatingSystemSection_Type")
    cpu = _items(content, "3")
    memory = _items(content, "4")
    return OvfVm(
        id=system.get(f"{{{OVF}}}id") or "",
        name=_text(content, "Name"),
        description=_text(content, "Description"),
        comment=_text(content, "Comment"),
        memory=int(_text(memory[0], "rasd:VirtualQuantity")) << 20 if memory else 1 << 30,
        sockets=int(_text(cpu[0], "rasd:num_of_sockets") or 1) if cpu else 1,
        cores=int(_text(cpu[0], "rasd:cpu_per_socket") or 1) if cpu else 1,
        threads=int(_text(cpu[0], "rasd:threads_per_cpu") or 1) if cpu else 1,
        os_type=_text(system, "Description"),
        os_kernel=_text(content, "kernel_url"),
        os_initrd=_text(content, "initrd_url"),
        os_cmdline=_text(content, "kernel_params"),
        bios_type=_BIOS_NAMES.get(_text(content, "BiosType"), "q35_sea_bios"),
        vm_type=_VM_TYPE_NAMES.get(_text(content, "VmType"), "server"),
        machine=_text(content, "CustomEmulatedMachine"),
        cluster=_text(content, "ClusterName"),
        level=_level(_text(content, "CustomCompatibilityVersion")),
        delete_protected=_text(content, "DeleteProtected") == "true",
        custom_properties=dict(_properties(_text(content, "UserDefinedProperties"))),
        disks=tuple(_disks(root, content)),
        nics=tuple(_nic(item) for item in _items(content, "10")),
    )


def _disks(root: etree._Element, content: etree._Element) -> Iterator[OvfDisk]:
    described = {_attribute(disk, "diskId"): disk for disk in root.iterfind("Section/Disk")}
    plugged = {_text(item, "rasd:InstanceId"): _text(item, "IsPlugged") != "false" for item in _items(content, "17")}
    for file in root.iterfind("References/File"):
        image_id = _attribute(file, "id")
        disk = described.get(image_id)
        if disk is None:
            continue
        yield OvfDisk(
            id=_attribute(file, "href").partition("/")[0],
            image_id=image_id,
            alias=_attribute(disk, "disk-alias"),
            interface=_DISK_NAMES.get(_attribute(disk, "disk-interface"), "virtio_scsi"),
            bootable=_attribute(disk, "boot") == "true",
            read_only=_attribute(disk, "read-only") == "true",
            pass_discard=_attribute(disk, "pass-discard") == "true",
            incremental=_attribute(disk, "incremental-backup") == "true",
            active=plugged.get(image_id, True),
        )


def _nic(item: etree._Element) -> OvfNic:
    return OvfNic(
        id=_text(item, "rasd:InstanceId"),
        name=_text(item, "rasd:Name"),
        mac=_text(item, "rasd:MACAddress"),
        interface=_NIC_NAMES.get(_text(item, "rasd:ResourceSubType"), "virtio"),
        network=_text(item, "rasd:Connection"),
        profile=_text(item, "rasd:OtherResourceType"),
        plugged=_text(item, "IsPlugged") != "false",
        linked=_text(item, "rasd:Linked") != "false",
    )


def _section(content: etree._Element, kind: str) -> etree._Element:
    for section in content.iterfind("Section"):
        if section.get(f"{{{XSI}}}type") == f"ovf:{kind}":
            return section
    raise _Missing(f"there is no {kind}")


def _items(content: etree._Element, kind: str) -> list[etree._Element]:
    hardware = _section(content, "VirtualHardwareSection_Type")
    return [item for item in hardware.iterfind("Item") if _text(item, "rasd:ResourceType") == kind]


def _text(element: etree._Element, path: str) -> str:
    return element.findtext(path, default="", namespaces=_NAMESPACES) or ""


def _attribute(element: etree._Element, name: str) -> str:
    return element.get(f"{{{OVF}}}{name}") or ""


def _level(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _properties(text: str) -> Iterator[tuple[str, str]]:
    for pair in text.split(";"):
        name, mark, value = pair.partition("=")
        if mark:
            yield name, value
