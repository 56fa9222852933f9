# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep admin …`, keys and certificates, and `overkeep movers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from overkeep.api.documents import LeftoverOut, LoadOut, MoverOut
from overkeep.cli import exits, output
from overkeep.cli.client import Client
from overkeep.cli.output import AsJson
from overkeep.controller.movers import enrolment

app = typer.Typer(no_args_is_help=True, help="Installation and care of the service.")

Pki = Annotated[Path, typer.Option("--pki", help="Folder of the controller's keys and certificates.")]
Addresses = Annotated[list[str], typer.Option("--address", help="Name or IP address; may be given several times.")]
_PKI = Path("/etc/overkeep/pki")


@app.command()
def init(address: Addresses, pki: Pki = _PKI) -> None:
    """Make the controller's CA, its certificate for the given addresses, and its key for orders to movers."""
    made = enrolment.init(pki, address)
    output.say(f"The controller's keys are in {pki}; users and movers trust {made.ca_cert}.")


@app.command()
def enrol(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Name of the host in the Manager.")],
    address: Addresses,
    out: Annotated[Path, typer.Option(help="Folder to write to, for /etc/overkeep/mover on the host.")],
    pki: Pki = _PKI,
) -> None:
    """Make what the mover of a host needs: its certificate and key, and the controller's public key."""
    enrolment.enrol(pki, host, addresses=address, out=out)
    output.say(f"The mover of {host} needs the files in {out}.")


@app.command()
def leftovers(as_json: AsJson = False) -> None:
    """List what is open in the Manager without a living job; the controller closes it by itself."""
    with Client() as client:
        found = client.all("/api/v1/leftovers", LeftoverOut)
    if as_json:
        output.documents(found)
    else:
        output.table(("KIND", "ID", "VM", "JOB"), [(item.kind, item.ref, item.vm_id, item.job_id) for item in found])


def movers(as_json: AsJson = False) -> int:
    """Show whether the data movers of all hosts answer."""
    with Client() as client:
        found = client.all("/api/v1/movers", MoverOut)
    if as_json:
        output.documents(found)
    else:
        rows = [(m.host, m.host_status, "ok" if m.ok else "down", m.version, *_busy(m.load), m.error) for m in found]
        output.table(("HOST", "STATUS", "MOVER", "VERSION", "RUNNING", "FREE", "WAITING", "WHY"), rows)
    return exits.OK if all(mover.ok for mover in found) else exits.FAILED


def _busy(load: LoadOut | None) -> tuple[str, str, str]:
    if load is None:
        return ("", "", "")
    return (str(load.running), str(max(0, load.at_once - load.running)), str(load.waiting))
