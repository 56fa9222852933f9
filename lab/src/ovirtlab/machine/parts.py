# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guest is made of: the machine's own cloud kernel, busybox and guest agent, and our scripts."""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ovirtlab.machine import cpio
from ovirtlab.machine.errors import HostError

BOOT = Path("/boot")
MODULES = ("virtio_pci", "virtio_blk", "virtio_console")
NEEDED = "install linux-image-cloud-amd64 busybox-static qemu-guest-agent lz4 e2fsprogs qemu-system-x86 qemu-utils"
LEFT_OUT = frozenset({"busybox", "init"})  # programs of busybox that get no link in /bin
OWN_INPUTS = ("command.py", "cpio.py", "images.py", "parts.py", "states.py")
FOLDERS = ("bin", "data", "dev", "etc", "lib", "lib64", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "var")


@dataclass(frozen=True, kw_only=True)
class GuestParts:
    """Files of this machine the guest is made of; `digest` changes when any of them, QEMU or our scripts change."""

    kernel: Path
    modules: tuple[Path, ...]
    busybox: Path
    agent: Path
    libraries: tuple[Path, ...]
    digest: str


@functools.cache
def find_parts() -> GuestParts:
    """Find the parts; `HostError` names what is not installed. Slow the first time (reads all files)."""
    kernel = _newest_kernel()
    modules = _module_files(kernel.name.removeprefix("vmlinuz-"))
    busybox, agent = _program("busybox"), _program("qemu-ga")
    libraries = _libraries(agent)
    inputs = (kernel, *modules, busybox, agent, *libraries, _program("qemu-system-x86_64"), _program("mke2fs"))
    return GuestParts(
        kernel=kernel,
        modules=modules,
        busybox=busybox,
        agent=agent,
        libraries=libraries,
        digest=_digest(inputs),
    )


def script(name: str) -> bytes:
    """One of the guest's own scripts."""
    return resources.files("ovirtlab.machine").joinpath("guest", name).read_bytes()


def initramfs(parts: GuestParts) -> bytes:
    """The archive the kernel starts with: busybox, drivers in loading order, and the script that mounts the disk."""
    order = "".join(f"/modules/{module.name}\n" for module in parts.modules)
    files = {f"modules/{module.name}": module.read_bytes() for module in parts.modules}
    files |= {"modules/order": order.encode(), "bin/busybox": parts.busybox.read_bytes(), "init": script("initramfs")}
    return cpio.archive(files)


def make_tree(parts: GuestParts, root: Path) -> None:
    """Fill the folder `root` with the system of the first disk."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    _install(parts.busybox, root / "bin/busybox")
    for name in sorted(_busybox_programs(parts.busybox) - LEFT_OUT):
        (root / "bin" / name).symlink_to("busybox")
    (root / "sbin/init").symlink_to("/bin/busybox")
    _install(parts.agent, root / "bin/qemu-ga")
    for library in parts.libraries:
        _install(library, root / library.relative_to("/"))
    for name in ("inittab", "start", "agent", "console", "stop"):
        _write(root / "etc" / name, script(name))
    _write(root / "sbin/shutdown", script("shutdown"))
    (root / "etc/passwd").write_text("root::0:0:root:/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/mtab").symlink_to("/proc/mounts")
    (root / "var/run").symlink_to("/run")


def _newest_kernel() -> Path:
    kernels = sorted(
        BOOT.glob("vmlinuz-*-cloud-amd64"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)]
    )
    if not kernels:
        raise HostError(f"there is no cloud kernel in {BOOT}; {NEEDED}")
    return kernels[-1]


def _program(name: str) -> Path:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not found:
        raise HostError(f"{name} is not installed; {NEEDED}")
    return Path(found)


def _module_files(release: str) -> tuple[Path, ...]:
    """Files of the drivers in loading order, dependencies first; a driver that is built in has none."""
    lines: list[str] = []
    for module in MODULES:
        lines += _output([str(_program("modprobe")), "-S", release, "--show-depends", module]).splitlines()
    return tuple(dict.fromkeys(Path(line.split()[1]) for line in lines if line.startswith("insmod ")))


def _libraries(program: Path) -> tuple[Path, ...]:
    listed = _output(["ldd", str(program)])
    return tuple(Path(path) for path in re.findall(r"(/lib\S+|/usr/lib\S+) \(0x", listed))


def _busybox_programs(busybox: Path) -> set[str]:
    return set(_output([str(busybox), "--list"]).split())


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise HostError(f"{command} failed: {done.stderr.strip()}; {NEEDED}")
    return done.stdout


def _digest(inputs: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in inputs:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    package = resources.files("ovirtlab.machine")
    ours = [package.joinpath(name) for name in OWN_INPUTS] + list(package.joinpath("guest").iterdir())
    for item in sorted(ours, key=lambda item: item.name):
        digest.update(item.name.encode() + b"\0" + item.read_bytes())
    return digest.hexdigest()


def _install(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)
