# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a VM in the engine's dialect of OVF: written from the state.

The layout follows what oVirt 4.5 writes (org.ovirt.engine.core.utils.ovf): version attribute 4.4.0.0 style, disk sizes
in GiB rounded up, the VM's id in the operating system section, file names `<disk id>/<image id>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from ovirtlab.engine.entities.disks import Disk, DiskAttachment
from ovirtlab.engine.entities.networks import Nic
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.state import BLANK, State

OVF = "http://schemas.dmtf.org/ovf/envelope/1/"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
VERSION = "4.5.7.0"
DISK_INTERFACES = {"virtio": "VirtIO", "virtio_scsi": "VirtIO_SCSI", "ide": "IDE", "sata": "SATA"}
NIC_TYPES = {"rtl8139_virtio": "0", "rtl8139": "1", "e1000": "2", "virtio": "3", "pci_passthrough": "5", "e1000e": "6"}
BIOS_TYPES = {"i440fx_sea_bios": "0", "q35_sea_bios": "1", "q35_ovmf": "2", "q35_secure_boot": "3"}
VM_TYPES = {"desktop": "0", "server": "1", "high_performance": "2"}
_CPU, _MEMORY, _NETWORK, _CD, _DISK, _MONITOR, _USB, _GRAPHICS = "3", "4", "10", "15", "17", "20", "23", "26"

for _prefix, _uri in (("ovf", OVF), ("rasd", RASD), ("vssd", VSSD), ("xsi", XSI)):
    ET.register_namespace(_prefix, _uri)


def write(state: State, vm: Vm) -> str:
    """The OVF text of a VM as it is now."""
    root = ET.Element(f"{{{OVF}}}Envelope", {f"{{{OVF}}}version": VERSION})
    pairs = [(state.disks[attachment.disk_id], attachment) for attachment in vm.attachments.values()]
    _references(root, pairs, vm)
    _networks(root, state, vm)
    section = _section(root, "DiskSection_Type")
    _text(section, "Info", "List of Virtual Disks")
    for disk, attachment in pairs:
        ET.SubElement(section, "Disk", dict(_disk_attributes(disk, attachment)))
    content = ET.SubElement(root, "Content", {f"{{{OVF}}}id": "out", f"{{{XSI}}}type": "ovf:VirtualSystem_Type"})
    for name, value in _general(state, vm):
        _text(content, name, value)
    _operating_system(content, vm)
    _hardware(content, state, vm)
    _snapshots(content, state, vm)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>{body}'


def date(moment: datetime | None) -> str:
    """A time as OVF has it, UTC; empty for none."""
    return moment.astimezone(UTC).strftime("%Y/%m/%d %H:%M:%S") if moment else ""


def _references(root: ET.Element, pairs: list[tuple[Disk, DiskAttachment]], vm: Vm) -> None:
    references = ET.SubElement(root, "References")
    for disk, _ in pairs:
        ET.SubElement(
            references,
            "File",
            _ovf(
                href=f"{disk.id}/{disk.image_id}",
                id=disk.image_id,
                size=str(disk.provisioned_size),
                description=disk.description or "Active VM",
                disk_storage_type="IMAGE",
                cinder_volume_type="",
            ),
        )
    for nic in vm.nics.values():
        ET.SubElement(references, "Nic", _ovf(id=nic.id))


def _networks(root: ET.Element, state: State, vm: Vm) -> None:
    section = ET.SubElement(root, "NetworkSection")
    _text(section, "Info", "List of networks")
    for name in dict.fromkeys(network_name(state, nic) for nic in vm.nics.values()):
        if name:
            ET.SubElement(section, "Network", _ovf(name=name))


def network_name(state: State, nic: Nic) -> str:
    """The logical network of a NIC; empty when it has none."""
    profile = state.vnic_profiles.get(nic.vnic_profile_id)
    return state.networks[profile.network_id].name if profile else ""


def _disk_attributes(disk: Disk, attachment: DiskAttachment) -> dict[str, str]:
    attributes = {
        "diskId": disk.image_id,
        "size": str(_gib(disk.provisioned_size)),
        "actual_size": str(_gib(disk.actual_size)),
        "vm_snapshot_id": "",
        "parentRef": "",
        "fileRef": f"{disk.id}/{disk.image_id}",
        "format": "http://www.gnome.org/~markmc/qcow-image-format.html"
        if disk.format == "cow"
        else "http://www.vmware.com/specifications/vmdk.html#sparse",
        "volume-format": disk.format.upper(),
        "volume-type": "Sparse" if disk.sparse else "Preallocated",
        "disk-interface": DISK_INTERFACES.get(attachment.interface, "VirtIO_SCSI"),
        "read-only": _flag(attachment.read_only),
        "shareable": _flag(disk.shareable),
        "boot": _flag(attachment.bootable),
        "pass-discard": _flag(attachment.pass_discard),
        "incremental-backup": _flag(disk.backup == "incremental"),
        "disk-alias": disk.alias,
        "disk-description": disk.description,
        "wipe-after-delete": _flag(disk.wipe_after_delete),
    }
    return _ovf(**attributes)


def _general(state: State, vm: Vm) -> Iterator[tuple[str, str]]:
    yield "Name", vm.name
    yield "Description", vm.description
    yield "Comment", vm.comment
    yield "CreationDate", date(vm.creation_time)
    yield "ExportDate", date(state.clock.now())
    yield "DeleteProtected", _flag(vm.delete_protected)
    yield "IsSmartcardEnabled", "false"
    yield "NumOfIoThreads", "1"
    yield "TimeZone", "Etc/GMT"
    yield "default_boot_sequence", "0"
    for name, value in (
        ("initrd_url", vm.os_initrd),
        ("kernel_url", vm.os_kernel),
        ("kernel_params", vm.os_cmdline),
    ):
        if value:
            yield name, value
    yield "Generation", str(vm.generation)
    if vm.level:
        yield "CustomCompatibilityVersion", "{}.{}".format(*vm.level)
    yield "ClusterCompatibilityVersion", "{}.{}".format(*state.clusters[vm.cluster_id].level)
    yield "VmType", VM_TYPES.get(vm.vm_type, "1")
    yield "ResumeBehavior", "AUTO_RESUME"
    yield "MinAllocatedMem", str(vm.memory >> 20)
    yield "IsStateless", "false"
    yield "IsRunAndPause", "false"
    yield "AutoStartup", "false"
    yield "Priority", "1"
    yield "IsBootMenuEnabled", "false"
    if vm.machine:
        yield "CustomEmulatedMachine", vm.machine
    yield "BiosType", BIOS_TYPES.get(vm.bios_type, "1")
    yield "PredefinedProperties", ""
    yield "UserDefinedProperties", ";".join(f"{name}={value}" for name, value in vm.custom_properties.items())
    yield "MaxMemorySizeMb", str((vm.memory >> 20) * 4)
    yield "MultiQueuesEnabled", "true"
    yield "VirtioScsiMultiQueuesEnabled", "false"
    yield "UseHostCpu", "false"
    yield "BalloonEnabled", "true"
    yield "CpuPinningPolicy", "0"
    yield "ClusterName", state.clusters[vm.cluster_id].name
    yield "TemplateId", BLANK
    yield "TemplateName", "Blank"
    yield "IsInitilized", "true"
    yield "Origin", "3"
    yield "DefaultDisplayType", "1"
    yield "TrustedService", "false"
    yield "OriginalTemplateId", BLANK
    yield "OriginalTemplateName", "Blank"
    yield "UseLatestVersion", "false"
    if vm.stop_time:
        yield "StopTime", date(vm.stop_time)


def _operating_system(content: ET.Element, vm: Vm) -> None:
    section = ET.SubElement(content, "Section", {**_ovf(id=vm.id, required="false"), **_type("OperatingSystemSection")})
    _text(section, "Info", "Guest Operating System")
    _text(section, "Description", vm.os_type)


def _hardware(content: ET.Element, state: State, vm: Vm) -> None:
    section = _section(content, "VirtualHardwareSection_Type")
    cpus = vm.sockets * vm.cores * vm.threads
    _text(section, "Info", f"{cpus} CPU, {vm.memory >> 20} Memory")
    system = ET.SubElement(section, "System")
    _text(system, f"{{{VSSD}}}VirtualSystemType", f"ENGINE {VERSION}")
    _item(
        section,
        Caption=f"{cpus} virtual cpu",
        Description="Number of virtual CPU",
        InstanceId="1",
        ResourceType=_CPU,
        num_of_sockets=str(vm.sockets),
        cpu_per_socket=str(vm.cores),
        threads_per_cpu=str(vm.threads),
        max_num_of_vcpus=str(16 * vm.cores * vm.threads),
        VirtualQuantity=str(cpus),
    )
    _item(
        section,
        Caption=f"{vm.memory >> 20} MB of memory",
        Description="Memory Size",
        InstanceId="2",
        ResourceType=_MEMORY,
        AllocationUnits="MegaBytes",
        VirtualQuantity=str(vm.memory >> 20),
    )
    for attachment in vm.attachments.values():
        _drive(section, state, attachment)
    for nic in vm.nics.values():
        _interface(section, state, nic)
    _item(section, Caption="USB Controller", InstanceId="3", ResourceType=_USB, UsbPolicy="DISABLED")


def _drive(section: ET.Element, state: State, attachment: DiskAttachment) -> None:
    disk = state.disks[attachment.disk_id]
    item = _item(
        section,
        Caption=disk.alias,
        InstanceId=disk.image_id,
        ResourceType=_DISK,
        HostResource=f"{disk.id}/{disk.image_id}",
        Parent=BLANK,
        Template=BLANK,
        ApplicationList="",
        StorageId=disk.storage_domain_id,
        StoragePoolId=state.storage_domains[disk.storage_domain_id].data_center_id,
        CreationDate=date(disk.creation_date),
        LastModified=date(disk.creation_date),
        last_modified_date=date(disk.creation_date),
    )
    boot = "1" if attachment.bootable else "0"
    _device(item, kind="disk", device="disk", boot=boot, plugged=attachment.active)


def _interface(section: ET.Element, state: State, nic: Nic) -> None:
    network = network_name(state, nic)
    profile = state.vnic_profiles.get(nic.vnic_profile_id)
    item = _item(
        section,
        Caption=f"Ethernet adapter on {network or '[No Network]'}",
        InstanceId=nic.id,
        ResourceType=_NETWORK,
        OtherResourceType=profile.name if profile else "",
        ResourceSubType=NIC_TYPES.get(nic.interface, "3"),
        Connection=network,
        Linked=_flag(nic.linked),
        Name=nic.name,
        ElementName=nic.name,
        MACAddress=nic.mac,
        speed="10000",
    )
    _device(item, kind="interface", device="bridge", boot="0", plugged=nic.plugged)


def _snapshots(content: ET.Element, state: State, vm: Vm) -> None:
    mine = [snapshot for snapshot in state.snapshots.values() if snapshot.vm_id == vm.id]
    section = _section(content, "SnapshotsSection_Type")
    active = ET.SubElement(section, "Snapshot", _ovf(id=vm.id))
    _text(active, "Type", "ACTIVE")
    _text(active, "Description", "Active VM")
    _text(active, "CreationDate", date(vm.creation_time))
    for snapshot in mine:
        element = ET.SubElement(section, "Snapshot", _ovf(id=snapshot.id))
        _text(element, "Type", snapshot.type.upper())
        _text(element, "Description", snapshot.description)
        _text(element, "CreationDate", date(snapshot.date))


def _device(item: ET.Element, *, kind: str, device: str, boot: str, plugged: bool) -> None:
    for name, value in (
        ("Type", kind),
        ("Device", device),
        (f"{{{RASD}}}Address", ""),
        ("BootOrder", boot),
        ("IsPlugged", _flag(plugged)),
        ("IsReadOnly", "false"),
        ("Alias", ""),
    ):
        _text(item, name, value)


def _item(section: ET.Element, **fields: str) -> ET.Element:
    item = ET.SubElement(section, "Item")
    for name, value in fields.items():
        _text(item, f"{{{RASD}}}{name}", value)
    return item


def _section(parent: ET.Element, kind: str) -> ET.Element:
    return ET.SubElement(parent, "Section", {f"{{{XSI}}}type": f"ovf:{kind}"})


def _type(kind: str) -> dict[str, str]:
    return {f"{{{XSI}}}type": f"ovf:{kind}_Type"}


def _text(parent: ET.Element, name: str, value: str) -> None:
    ET.SubElement(parent, name).text = value


def _ovf(**attributes: str) -> dict[str, str]:
    return {f"{{{OVF}}}{name}": value for name, value in attributes.items()}


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _gib(size: int) -> int:
    return -(-size >> 30)
