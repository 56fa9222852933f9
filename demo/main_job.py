# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: back up running VMs, change them, back up again, restore from each point, boot, compare."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.console import Journal
from demo.deployment import Deployment, Lab, run, wait_until
from overkeep.units import KIB, MIB, human_size

CLUSTER = 64 * KIB
FOLDER = "/root/known"

# Files of 3 MiB of noise and a text, synced, with their digests beside them; `$1` names the generation.
WRITE_FILES = """set -e
mkdir -p {folder}/{name}
dd if=/dev/urandom of={folder}/{name}/noise.bin bs=64k count=48 conv=fsync 2>/dev/null
echo 'written {name}' > {folder}/{name}/text.txt
cd {folder}/{name}
sha256sum noise.bin text.txt > SUMS
sync
cat SUMS
"""


@dataclass
class MainJob:
    """The steps in their order; each leaves on `self` what later steps need."""

    lab: Lab
    product: Deployment
    journal: Journal
    sums: dict[tuple[str, str], str] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    raw_points: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self) -> None:
        """Run all steps; raise at the first thing that is not as it must be."""
        self.make_workload()
        self.write_files("before")
        self.back_up("full", "--full")
        self.write_files("after")
        self.back_up("incremental")
        self.judge_incremental()
        self.restore("full", "web-from-full")
        self.restore("incremental", "web-from-incremental")
        self.check_restored("web-from-full", present=("before",), absent=("after",))
        self.check_restored("web-from-incremental", present=("before", "after"), absent=())
        self.show_chain()
        self.restore_without_us()
        self.nothing_locked()

    def make_workload(self) -> None:
        """Two running VMs: `web` with two QCOW2 disks that track changes, `db` with a raw one."""
        with self.journal.step("A workload of two running VMs, web and db"):
            self.product.overkeep("workload", "create", "demo", "--vm", "web", "--vm", "db")
            for name in ("web", "db"):
                disks = ", ".join(f"{d['name']} ({d['format']})" for d in self.lab.vm(name)["disks"])
                self.journal.say(f"{name}: {disks}")

    def write_files(self, generation: str) -> None:
        """Write known files inside both guests, on every disk of them that has a file system."""
        with self.journal.step(f"Known files are written in the guests ({generation})"):
            for vm, folder in (("web", FOLDER), ("web", "/data"), ("db", FOLDER)):
                sums = self.lab.guest(vm, WRITE_FILES.format(folder=folder, name=generation))
                self.sums[vm + folder, generation] = sums.strip()
                self.journal.say(f"{vm}:{folder}/{generation}: noise.bin {sums[:16]}…")

    def back_up(self, mode: str, *options: str) -> None:
        """Back the workload up and look at what the points say."""
        with self.journal.step(f"Backup ({mode})") as step:
            self.product.overkeep("backup", "demo", *options, show=sys.stdout)
            points = self.product.overkeep("points", "--workload", "demo", "--json").json()
            newest = {vm: [p for p in points if p["vm_name"] == vm][-1] for vm in ("web", "db")}
            self.points[mode], self.raw_points[mode] = newest["web"], newest["db"]
            images = [image for point in newest.values() for image in point["images"]]
            step.moved = sum(image["moved"] for image in images)
            step.stored = sum(image["stored"] for image in images)
            modes = {image["mode"] for image in newest["web"]["images"]}
            self.journal.check(
                f"both disks of web were backed up as {mode}", holds=modes == {mode}, otherwise=str(modes)
            )

    def judge_incremental(self) -> None:
        """The incremental images hold changed clusters and nothing else."""
        with self.journal.step("The incremental holds only what changed"):
            for image in self.points["incremental"]["images"]:
                path = self._image_path(self.points["incremental"], image)
                info = _qemu_json("info", path)
                data = info["actual-size"]
                limit = 1.05 * image["covered"] + MIB
                self.journal.check(
                    f"{image['name']}: {human_size(data)} for {image['covered'] // CLUSTER} changed clusters "
                    f"(at most {human_size(int(limit))})",
                    holds=image["covered"] > 0 and data <= limit,
                )
            [full], [image] = (self.raw_points[mode]["images"] for mode in ("full", "incremental"))
            self.journal.check(
                f"{image['name']} (raw): compared with the point before, {human_size(image['stored'])} kept "
                f"(the full has {human_size(full['stored'])})",
                holds=image["changes"] == "compared" and image["stored"] <= full["stored"] / 3,
            )

    def restore(self, mode: str, name: str) -> None:
        """Restore web under a new name and start it."""
        point = self.points[mode]
        with self.journal.step(f"Restore of web as {name} from the {mode} point, and start") as step:
            self.product.overkeep("restore", point["id"], "--vm", "web", "--name", name, "--start", "--json", show=None)
            step.moved = sum(image["covered"] for image in point["images"])
            wait_until(lambda: self._answers(name), what=f"the boot of {name}", seconds=90)
            self.journal.check(f"{name} booted from its restored disk and answers", holds=True)

    def check_restored(self, name: str, *, present: tuple[str, ...], absent: tuple[str, ...]) -> None:
        """Look from inside the restored guest."""
        with self.journal.step(f"What is in {name}, seen from inside"):
            for folder in (FOLDER, "/data"):
                for generation in present:
                    text = self.lab.guest(name, f"cd {folder}/{generation} && sha256sum -c SUMS && cat SUMS")
                    same = text.strip().endswith(self.sums["web" + folder, generation])
                    self.journal.check(f"{folder}/{generation} has the right contents", holds=same, otherwise=text)
                for generation in absent:
                    text = self.lab.guest(name, f"test -e {folder}/{generation} && echo there || echo missing")
                    self.journal.check(f"{folder}/{generation} is not there yet", holds=text.strip() == "missing")

    def show_chain(self) -> None:
        """The chain with the tools everybody has."""
        with self.journal.step("The chain as qemu-img sees it"):
            point = self.points["incremental"]
            for image in point["images"]:
                path = self._image_path(point, image)
                self.journal.say(run(["qemu-img", "info", "--backing-chain", path]).text)
                for file in sorted(path.parent.glob("*.qcow2")):
                    checked = run(["qemu-img", "check", file], expect=None)
                    self.journal.check(f"qemu-img check {file.name}", holds=checked.status == 0, otherwise=checked.text)

    def restore_without_us(self) -> None:
        """A copy of the tree elsewhere, and `qemu-img convert`: nothing of this product takes part."""
        with self.journal.step("A disk restored with qemu-img alone, from a copy of the tree at another path") as step:
            copy = self.product.directory / "copied" / "elsewhere"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self.product.repository, copy)
            point = self.points["incremental"]
            image = next(i for i in point["images"] if i["bootable"])
            source = copy / self._image_path(point, image).relative_to(self.product.repository)
            raw = self.product.directory / "copied" / "disk.raw"
            run(["qemu-img", "convert", "-O", "raw", source, raw])
            step.moved = image["virtual_size"]
            checked = run(["e2fsck", "-fn", raw], expect=None)
            self.journal.check(
                "the file system on it is whole (e2fsck -fn)", holds=checked.status == 0, otherwise=checked.text
            )
            for generation in ("before", "after"):
                dumped = raw.with_name("noise.bin")
                run(["debugfs", "-R", f"dump {FOLDER}/{generation}/noise.bin {dumped}", raw])
                digest = run(["sha256sum", dumped]).text.split()[0]
                self.journal.check(
                    f"{FOLDER}/{generation}/noise.bin on it has the right contents",
                    holds=self.sums["web" + FOLDER, generation].startswith(digest),
                )
            shutil.rmtree(copy.parent)

    def nothing_locked(self) -> None:
        """The Manager has no backup, no transfer and no locked disk left."""
        with self.journal.step("Nothing is left open in the Manager"):
            left = self.product.overkeep("admin", "leftovers", "--json").json()
            self.journal.check(
                "no backup, transfer or locked disk of ours", holds=left == [], otherwise=json.dumps(left)
            )

    def _answers(self, name: str) -> bool:
        return run([*self.lab.guest_command(name), "true"], expect=None, timeout=60).status == 0

    def _image_path(self, point: dict[str, Any], image: dict[str, Any]) -> Path:
        return self.product.image_path(point, image)


def _qemu_json(verb: str, path: Path) -> Any:
    return json.loads(run(["qemu-img", verb, "--output=json", path]).text)
