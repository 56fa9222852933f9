# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m demo [--keep]`: run the main job in a lab of its own; exit status 1 if anything differs."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from demo.console import CheckFailed, Journal
from demo.deployment import CommandError, Deployment, Lab, NoTarget, unmount
from demo.main_job import MainJob


def main() -> int:
    """Run the demo and return the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running and say where to look")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="overkeep-demo-"))
    lab = Lab(directory / "lab")
    product = Deployment(lab, directory / "product")
    journal = Journal()
    try:
        _start(lab, product, journal)
        MainJob(lab, product, journal).run()
    except (CheckFailed, CommandError, NoTarget, TimeoutError, RuntimeError) as error:
        journal.say(f"FAILED: {error}")
        return _leave(lab, product, journal, keep=options.keep, status=1)
    except KeyboardInterrupt:
        journal.say("Interrupted; everything is taken down.")
        return _leave(lab, product, journal, keep=False, status=130)
    return _leave(lab, product, journal, keep=options.keep, status=0)


def _start(lab: Lab, product: Deployment, journal: Journal) -> None:
    with journal.step("The lab starts: 2 hosts, 3 VMs, an NFS server"):
        lab.up()
        facts = lab.facts
        journal.say(f"Manager {facts['engine_url']}, target {facts['target']['url']}")
    with journal.step("The controller and a mover per host start"):
        product.install()
        product.start()
        product.login()


def _leave(lab: Lab, product: Deployment, journal: Journal, *, keep: bool, status: int) -> int:
    journal.table()
    verdict = "Everything is as it must be" if status == 0 else "Something is not as it must be"
    journal.say(f"{verdict}: {journal.checks} checks held.")
    if keep:
        _say_where(lab, product, journal)
        return status
    product.stop()
    unmount(product.directory / "mnt")
    lab.down()
    if status == 0:
        shutil.rmtree(product.directory.parent)
    else:
        journal.say(f"The logs are in {product.directory.parent}.")
    return status


def _say_where(lab: Lab, product: Deployment, journal: Journal) -> None:
    session = " ".join(f"{name}={value}" for name, value in product.session.items())
    pids = " ".join(str(s.child.pid) for s in product.services.values() if s.child)
    journal.say(
        f"""
Everything is left running:
  Manager        {lab.facts["engine_url"]} as {lab.facts["username"]}, facts in {lab.directory}/lab.json
  guests         ovirtlab guest exec --dir {lab.directory} web -- ls /root
  command line   {session} overkeep points
  repository     {product.repository}
  logs           {product.directory}/*.log
To end it: kill {pids}; umount {product.directory}/mnt/*; ovirtlab down --dir {lab.directory}"""
    )


if __name__ == "__main__":
    sys.exit(main())
