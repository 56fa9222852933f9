# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's libvirt inside this process (`qemu:///embed`), obeying one JSON order a line; run by the system's Python.

Usage: driver.py DIRECTORY. An order is `{"verb": ..., ...}`; its answer `{"result": ...}` or `{"error": text,
"code": N}` with libvirt's own number. What libvirt sends to QEMU is in the log file its environment names.
"""

import json
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import libvirt_qemu

REDEFINE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE | libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
METADATA = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
HMP = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
END_LIMIT = 20.0
CONFIGURATION = """
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""


class Driver:
    """One libvirt with at most one VM, called `vm1`."""

    def __init__(self, directory):
        self.directory = directory
        root = directory / "root"
        (root / "etc").mkdir(parents=True, exist_ok=True)
        (root / "etc/qemu.conf").write_text(CONFIGURATION)
        self.connection = libvirt.open(f"qemu:///embed?root={root}")
        self.domain = None

    def start(self, disks):
        """Start the VM, paused in its firmware; `disks` is a list of [target, format]."""
        parts = [
            f"<disk type='file' device='disk'><driver name='qemu' type='{form}' discard='unmap'/>"
            f"<source file='{self.directory}/{target}.{form}'/><target dev='{target}' bus='virtio'/></disk>"
            for target, form in disks
        ]
        self.domain = self.connection.defineXML(
            "<domain type='qemu'><name>vm1</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>"
            "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
            "<emulator>/usr/bin/qemu-system-x86_64</emulator>"
            f"{''.join(parts)}<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
        )
        self.domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        return self.nodes()

    def nodes(self):
        """What libvirt calls the nodes of the disks, and of scratch images while a backup runs."""
        found = {}
        for disk in ElementTree.fromstring(self.domain.XMLDesc()).iter("disk"):
            number, target = disk.find("source").get("index"), disk.find("target").get("dev")
            found |= {f"libvirt-{number}-format": target, f"libvirt-{number}-storage": f"{target}-storage"}
        return found

    def begin(self, name, plan):
        """Start a backup with a checkpoint; `plan` is a list of [target, from checkpoint, gets a bitmap]."""
        disks, tracked = "", ""
        for target, since, bitmap in plan:
            mode = f"backupmode='incremental' incremental='{since}'" if since else "backupmode='full'"
            disks += f"<disk name='{target}' type='file' {mode}>"
            disks += f"<scratch file='{self.directory}/{name}-{target}.scratch'/></disk>"
            kind = f"'bitmap' bitmap='{name}'" if bitmap else "'no'"
            tracked += f"<disk name='{target}' checkpoint={kind}/>"
        oldest = next((f"<incremental>{since}</incremental>" for _, since, _ in plan if since), "")
        server = f"<server transport='unix' socket='{self.directory}/backup'/>"
        self.domain.backupBegin(
            f"<domainbackup mode='pull'>{oldest}{server}<disks>{disks}</disks></domainbackup>",
            f"<domaincheckpoint><name>{name}</name><disks>{tracked}</disks></domaincheckpoint>",
            libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL,
        )
        return self.scratch_nodes()

    def scratch_nodes(self):
        found = {}
        for disk in ElementTree.fromstring(self.domain.backupGetXMLDesc()).iter("disk"):
            number, target = disk.get("index"), disk.get("name")
            if number:
                found |= {f"libvirt-{number}-format": f"scratch-{target}"}
                found |= {f"libvirt-{number}-storage": f"scratch-{target}-storage"}
        return found

    def stop(self):
        """Abort the backup's job and wait until libvirt has tidied up after it."""
        self.domain.abortJob()
        end = time.monotonic() + END_LIMIT
        while self.domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE and time.monotonic() < end:
            time.sleep(0.01)

    def write(self, target, command):
        device = f"/machine/peripheral/virtio-disk{ord(target[-1]) - ord('a')}/virtio-backend"
        return libvirt_qemu.qemuMonitorCommand(self.domain, f'qemu-io -d {device} "{command}"', HMP)

    def redefine(self, name, targets):
        disks = "".join(f"<disk name='{target}' checkpoint='bitmap' bitmap='{name}'/>" for target in targets)
        named = f"<name>{name}</name><creationTime>1</creationTime>"
        xml = f"<domaincheckpoint>{named}<disks>{disks}</disks></domaincheckpoint>"
        self.domain.checkpointCreateXML(xml, REDEFINE)

    def delete(self, name):
        self.domain.checkpointLookupByName(name).delete()

    def lose_bitmap(self, target, name):
        """Remove a bitmap behind libvirt's back."""
        node = next(node for node, role in self.nodes().items() if role == target)
        order = {"execute": "block-dirty-bitmap-remove", "arguments": {"node": node, "name": name}}
        return libvirt_qemu.qemuMonitorCommand(self.domain, json.dumps(order), 0)

    def power_off(self):
        """End the VM as the Engine's power-off does, and let libvirt forget it, as a transient VM of oVirt's is."""
        if self.domain is None:
            return
        with suppress(libvirt.libvirtError):  # it may have been killed
            self.domain.destroy()
        for checkpoint in self.domain.listAllCheckpoints():
            checkpoint.delete(METADATA)
        self.domain.undefine()
        self.domain = None


def obey(driver, order):
    try:
        return {"result": getattr(driver, order.pop("verb"))(**order)}
    except libvirt.libvirtError as error:
        return {"error": str(error), "code": error.get_error_code()}


def follow_events():
    while True:
        libvirt.virEventRunDefaultImpl()


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=follow_events, daemon=True).start()
    driver = Driver(Path(sys.argv[1]))
    try:
        for line in sys.stdin:
            sys.stdout.write(json.dumps(obey(driver, json.loads(line))) + "\n")
            sys.stdout.flush()
    finally:
        driver.power_off()


main()
