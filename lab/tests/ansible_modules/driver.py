# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs modules of the collection the way Ansible does on the machine it manages: a process and JSON for each.

It is a program of its own, as its Python is Ansible's: orders come as lines of JSON, and so do the results.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from ansible.module_utils import testing  # type: ignore[import-not-found]

MODULES = "ansible_collections.ovirt.ovirt.plugins.modules.ovirt_"


def main() -> None:
    """Answer each order with the result of its module."""
    importlib.import_module("ansible_collections.ovirt.ovirt.plugins.module_utils.ovirt")  # with the SDK, once for all
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _run(order: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 1)
        with testing.patch_module_args(order["arguments"]):
            importlib.import_module(MODULES + order["module"]).main()  # ends this process
        raise RuntimeError(f"the module {order['module']} came back")
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    os.waitpid(child, 0)
    try:
        result: dict[str, Any] = json.loads(text)
    except ValueError:
        return {"failed": True, "msg": f"the module said {text!r}"}
    return result


if __name__ == "__main__":
    main()
