# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules one by one, and whole playbooks, against a lab."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

HOME = Path(__file__).parents[3] / ".cache/ansible-venv"
COLLECTIONS = HOME / "collections"
DRIVER = Path(__file__).with_name("driver.py")
LIMIT = 120
# Arguments of those modules that wait for something; a lab does in a second what an engine does in a minute.
_WAITING = {"poll_interval": 1, "timeout": 60}
_NOT_WAITING = ("event", "auth")


def login(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the modules take as `auth`."""
    return {
        "url": facts["engine_url"],
        "username": facts["username"],
        "password": facts["password"],
        "ca_file": facts["ca_file"],
    }


class Modules:
    """Runs a module and returns what it returns."""

    def __init__(self, auth: dict[str, Any], process: subprocess.Popen[str]) -> None:
        self._auth = auth
        self._process = process

    def run(self, module: str, /, *, check: bool = False, diff: bool = False, **arguments: Any) -> dict[str, Any]:
        """The result, which must be a good one."""
        result = self.attempt(module, check=check, diff=diff, **arguments)
        assert not result.get("failed"), f"{module} {arguments}: {result.get('msg')}\n{result.get('exception', '')}"
        return result

    def attempt(self, module: str, /, *, check: bool = False, diff: bool = False, **arguments: Any) -> dict[str, Any]:
        """The result, good or bad."""
        waits = not module.endswith("_info") and module not in _NOT_WAITING
        modes = {"_ansible_check_mode": check, "_ansible_diff": diff}
        login = {} if module == "auth" else {"auth": self._auth}
        order = {**login, **(_WAITING if waits else {}), **arguments, **modes}
        return self._ask({"module": module, "arguments": order})

    def changes(self, module: str, /, **arguments: Any) -> dict[str, Any]:
        """The result of what must have changed something."""
        result = self.run(module, **arguments)
        assert result["changed"], f"{module} {arguments} changed nothing: {result}"
        return result

    def leaves(self, module: str, /, **arguments: Any) -> dict[str, Any]:
        """The result of what must have found everything as it should be."""
        result = self.run(module, **arguments)
        assert not result["changed"], f"{module} {arguments} changed something: {result}"
        return result

    def once(self, module: str, /, **arguments: Any) -> dict[str, Any]:
        """The result of what changes something, and when it is repeated nothing more."""
        result = self.changes(module, **arguments)
        self.leaves(module, **arguments)
        return result

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the driver has ended with {self._process.wait(5)}"
        result: dict[str, Any] = json.loads(line)
        return result


@contextmanager
def driver(facts: Mapping[str, Any], folder: Path) -> Iterator[Modules]:
    """Modules for one lab; the process that runs them ends with the block."""
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(COLLECTIONS), "TMPDIR": str(folder)}
    pipes: dict[str, IO[Any] | int] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([HOME / "bin/python", DRIVER], env=environment, text=True, **pipes)  # type: ignore[call-overload]
    try:
        yield Modules(login(facts), process)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(LIMIT)
        finally:
            process.kill()
            process.wait(90)


def program(name: str, folder: Path, *arguments: str | Path) -> str:
    """What one of Ansible's programs prints; it must end well."""
    environment = {
        **os.environ,
        "HOME": str(folder),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_NOCOLOR": "1",
    }
    argv = [HOME / "bin" / name, *arguments]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def play(folder: Path, facts: Mapping[str, Any], *tasks: dict[str, Any]) -> str:
    """Run modules one after another in a playbook with one login for all, which ends at its end."""
    head: dict[str, Any] = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    head["vars"] = {"ansible_python_interpreter": str(HOME / "bin/python")}
    begin = {"ovirt.ovirt.ovirt_auth": login(facts)}
    end = {"ovirt.ovirt.ovirt_auth": {"state": "absent", "ovirt_auth": "{{ ovirt_auth }}"}}
    defaults = {"group/ovirt.ovirt.ovirt": {"auth": "{{ ovirt_auth }}"}}
    book = folder / "book.yml"
    plays = [
        {**head, "tasks": [begin]},
        {**head, "module_defaults": defaults, "tasks": tasks},
        {**head, "tasks": [end]},
    ]
    book.write_text(json.dumps(plays))
    return program("ansible-playbook", folder, "-i", "localhost,", book)


def task(kind: str, /, **arguments: Any) -> dict[str, Any]:
    """A task of a playbook."""
    return {f"ovirt.ovirt.ovirt_{kind}": arguments}
