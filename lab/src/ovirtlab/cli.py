# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `ovirtlab`."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ovirtlab import teardown
from ovirtlab.faults.active import GROUPS, find
from ovirtlab.faults.base import FaultError
from ovirtlab.faults.client import Faults
from ovirtlab.places import Places, default_directory
from ovirtlab.remote import LabError, call
from ovirtlab.starting import Wanted, start

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An oVirt in a box, for tests and demonstrations.",
)
guest = typer.Typer(no_args_is_help=True, help="Reach into the VMs of a lab.")
fault = typer.Typer(no_args_is_help=True, help="Break parts of a lab, and mend them.")
app.add_typer(guest, name="guest")
app.add_typer(fault, name="fault")

# what comes after the first argument belongs to the command in the guest
_REST = {"allow_interspersed_args": False}

_DEFAULT = "/var/tmp/ovirtlab-UID"  # noqa: S108 - only shown
Dir = Annotated[Path | None, typer.Option("--dir", help="Directory of the lab.", show_default=_DEFAULT)]
VmName = Annotated[str, typer.Argument(metavar="VM", help="Name or id of a VM.")]


def run() -> None:
    """Entry point: errors of a lab are one sentence and exit status 1."""
    try:
        app()
    except (LabError, FaultError, teardown.TeardownError, OSError) as error:
        print(f"ovirtlab: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _places(directory: Path | None) -> Places:
    return Places((directory or default_directory()).resolve())


def _say(text: str) -> None:
    """Print a line; that nobody reads it any more is no reason to stop half-way."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process


@app.command()
def up(
    directory: Dir = None,
    hosts: Annotated[int | None, typer.Option(help="Number of hosts, instead of the environment's.")] = None,
    vms: Annotated[int | None, typer.Option(help="Number of VMs; added ones have no guest.")] = None,
    environment: Annotated[Path | None, typer.Option(help="YAML file that says what the lab holds.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where guest images are kept.", show_default="~/.cache/ovirtlab")
    ] = None,
) -> None:
    """Start a lab in the background and return when it is ready."""
    begin = time.monotonic()
    places = _places(directory)
    wanted = Wanted(environment=environment, hosts=hosts, vms=vms, cache=cache)
    document = start(places.directory, wanted, say=_say)
    _say(f"{time.monotonic() - begin:6.2f} s  in all")
    target = document["target"]
    _say(f"Manager  {document['engine_url']} as {document['username']}")
    _say(f"Target   {target['url'] if target else 'none: ' + document['target_missing']}")
    _say(f"Hosts    {', '.join(host['name'] + ' ' + host['address'] for host in document['hosts'])}")
    if not document["isolated"]:
        _say("Network  loopback addresses: network namespaces are not to be had here, so no network can be cut")
    _say(f"VMs      {', '.join(vm['name'] for vm in document['vms']) or 'none'}")
    _say(f"Facts    {places.facts}")


@app.command()
def down(directory: Dir = None) -> None:
    """End a lab and remove everything it made, also after it crashed."""
    places = _places(directory)
    removed = teardown.tear_down(places.directory)
    for what in removed:
        _say(f"removed {what}")
    if not removed:
        _say(f"nothing of a lab is left in {places.directory}")


@app.command()
def status(directory: Dir = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what runs. Exit status 1 when no lab is up."""
    places = _places(directory)
    document = call(places, "GET", "status")
    if as_json:
        _say(json.dumps(document, indent=2))
        return
    nfs = {True: "answers", False: "does not answer", None: "none"}[document["nfs"]]
    _say(f"Lab in {places.directory}; NFS server: {nfs}")
    for host in document["hosts"]:
        _say(f"host {host['name']}: imageio {'runs' if host['imageio'] else 'is down'}")
    for vm in document["vms"]:
        where = f" on {vm['host']}" if vm["host"] else ""
        _say(f"VM {vm['name']}: {vm['state']}{where}")


@app.command()
def logs(
    directory: Dir = None,
    host: Annotated[str | None, typer.Option(help="The imageio daemon of this host.")] = None,
    vm: Annotated[str | None, typer.Option(help="QEMU and the console of this VM.")] = None,
    nfs: Annotated[bool, typer.Option("--nfs", help="The NFS server and the mounts.")] = False,
    engine: Annotated[bool, typer.Option("--engine", help="Supervisor and Engine (the default).")] = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the logs grow.")] = False,
) -> None:
    """Show logs."""
    chosen = [bool(host), bool(vm), nfs, engine]
    if sum(chosen) > 1:
        raise LabError("Name one of --host, --vm, --nfs and --engine.")
    files = _log_files(_places(directory), host=host, vm=vm, nfs=nfs)
    found = [path for path in files if path.is_file() and path.stat().st_size]
    if not found:
        raise LabError("There is no such log (yet); see `ovirtlab status` for what there is.")
    command = ["tail", "-n", "+1" if len(found) == 1 and not follow else "200", *(["-F"] if follow else [])]
    os.execvp("tail", [*command, *map(str, found)])  # noqa: S606 - the program itself, no shell


def _log_files(places: Places, *, host: str | None, vm: str | None, nfs: bool) -> list[Path]:
    if host:
        folder = places.host(host) / "imageio"
        return [folder / "daemon.log", folder / "daemon.out"]
    if vm:
        found = call(places, "GET", "vms", vm)
        return sorted(places.directory.glob(f"h/*/vms/{found['id']}/*log*"))
    if nfs:
        return sorted([*places.nfs.glob("*.log"), *places.nfs.glob("*.out")])
    return [places.log]


@guest.command("exec", context_settings=_REST)
def guest_exec(
    vm: VmName, command: Annotated[list[str], typer.Argument(help="Program and its arguments.")], directory: Dir = None
) -> None:
    """Run a program in a guest; its output and exit status become this command's."""
    argv = command[1:] if command[0] == "--" else command
    document = call(_places(directory), "POST", "vms", vm, "exec", body={"argv": argv})
    sys.stdout.buffer.write(base64.b64decode(document["stdout"]))
    sys.stderr.buffer.write(base64.b64decode(document["stderr"]))
    sys.stdout.flush()
    raise typer.Exit(document["status"])


@guest.command("io")
def guest_io(
    vm: VmName,
    target: Annotated[str, typer.Argument(help="Disk as the guest would see it: vda, vdb, sda.")],
    commands: Annotated[list[str], typer.Argument(help="Commands of qemu-io: `write -P 0x5a 100M 20M` flush.")],
    directory: Dir = None,
) -> None:
    """Write to or read from a disk of a running VM through its QEMU, as a guest would."""
    for command in commands:
        document = call(_places(directory), "POST", "vms", vm, "io", body={"target": target, "command": command})
        _say(document["output"].rstrip())


@fault.command("list")
def fault_list() -> None:
    """Show all faults with their parameters; needs no lab."""
    for group, kinds in GROUPS.items():
        _say(f"{group}:")
        for kind in kinds:
            words = [f"{one.name}=…" if one.default is None else f"[{one.name}=…]" for one in kind.parameters()]
            _say(f"  {' '.join([kind.name, *words])}")
            _say(f"      {kind.summary()}")


@fault.command("do")
def fault_do(
    name: Annotated[str, typer.Argument(help="Name of a fault, as `ovirtlab fault list` shows it.")],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[VALUE|PARAMETER=VALUE]...", help="Parameters, in order or by name.")
    ] = None,
    directory: Dir = None,
) -> None:
    """Break something; it stays so until `ovirtlab fault clear`."""
    known = [one.name for one in find(name).parameters()]
    texts = {}
    for place, value in enumerate(values or []):
        word, equals, rest = value.partition("=")
        if equals:
            texts[word] = rest
        elif place < len(known):
            texts[known[place]] = value
        else:
            raise LabError(f"{name} has {len(known)} parameters, so {value!r} is one too many.")
    key = Faults(_places(directory).directory).do(name, **texts)
    _say(f"fault {key}" if key else "done; nothing is left to be cleared")


@fault.command("status")
def fault_status(
    directory: Dir = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show the faults that are in force."""
    active = Faults(_places(directory).directory).active()
    if as_json:
        _say(json.dumps(active, indent=2))
        return
    for one in active:
        words = [f"{name}={value}" for name, value in one["parameters"].items() if value != ""]
        _say(f"{one['id']}  {' '.join([one['name'], *words])}")
    if not active:
        _say("no fault is in force")


@fault.command("clear")
def fault_clear(
    which: Annotated[str, typer.Argument(help="Id or name; all when left out.")] = "", directory: Dir = None
) -> None:
    """Mend one fault, or all."""
    cleared = Faults(_places(directory).directory).mend(which)
    _say(f"cleared {', '.join(cleared.ids)}" if cleared.ids else "no fault was in force")
    for text in cleared.remains:
        _say(f"stays as it is: {text}")


@fault.command("nfs")
def fault_nfs(
    act: Annotated[str, typer.Argument(help="kill, restart, freeze or thaw.")], directory: Dir = None
) -> None:
    """Kill, restart, freeze or thaw the NFS server: short for the faults of these names."""
    mended_by = {"restart": ("nfs-kill", "nfs-freeze"), "thaw": ("nfs-freeze",)}
    _short(directory, f"nfs-{act}", mends=mended_by.get(act, ()))


@fault.command("imageio")
def fault_imageio(
    host: Annotated[str, typer.Argument(help="Name of a host.")],
    act: Annotated[str, typer.Argument(help="kill or restart.")],
    directory: Dir = None,
) -> None:
    """Kill or restart the imageio daemon of a host, whose tickets are lost: short for the faults of these names."""
    _short(directory, f"imageio-{act}", mends=("imageio-kill",) if act == "restart" else (), host=host)


@fault.command("vm")
def fault_vm(vm: VmName, directory: Dir = None) -> None:
    """Kill the QEMU of a VM: short for the fault vm-kill."""
    _short(directory, "vm-kill", vm=vm)


def _short(directory: Path | None, name: str, *, mends: tuple[str, ...] = (), **parameters: str) -> None:
    """Mend what is in force of `mends` with these parameters; where nothing is, break `name`."""
    faults = Faults(_places(directory).directory)
    ours = [one["id"] for one in faults.active() if one["name"] in mends and one["parameters"] == parameters]
    for key in reversed(ours):
        faults.clear(key)
    if name == "nfs-thaw" and not ours:
        raise LabError("The NFS server is not frozen.")
    if not ours:
        faults.do(name, **parameters)


if __name__ == "__main__":
    run()
