# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes one program of the Go SDK's examples, as they are but for the engine they speak to and how long they sleep."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

MODULE = "github.com/ovirt/go-ovirt/v4"
TIMEOUT = 600.0  # the SDK is large, and is compiled once

_ENGINE = re.compile(r'inputRawURL := "[^"]*"')
_SECRET = re.compile(r'(Username\("admin@internal"\)\.\s*)Password\("(?!wrong)[^"]*"\)')  # one is to be refused
_FUNCTION = re.compile(r"^func (\w+)\(\) \{", re.MULTILINE)

_MAIN = """package main

import (
	"os"
	"time"
)

var engineURL, secret = os.Getenv("OVIRT_URL"), os.Getenv("OVIRT_PASSWORD")

func pause(time.Duration) {{ time.Sleep(100 * time.Millisecond) }}

var programs = map[string]func(){{
{programs}
}}

func main() {{ programs[os.Args[1]]() }}
"""


def build(source: Path, folder: Path, programs: Iterable[str]) -> Path:
    """Build the named files of a checkout of the SDK below an empty folder; the program takes a file's name."""
    home = folder / "src/examples"
    home.mkdir(parents=True)
    sdk = folder / "src" / MODULE
    sdk.parent.mkdir(parents=True)
    sdk.symlink_to(source)
    listed = []
    for name in programs:
        text = (source / "examples" / name).read_text()
        calls = "; ".join(f"{function}()" for function in _FUNCTION.findall(text))
        listed.append(f'\t"{name}": func() {{ {calls} }},')
        (home / name).write_text(_redirected(text))
    (home / "main.go").write_text(_MAIN.format(programs="\n".join(listed)))
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{folder}:/usr/share/gocode", "GOFLAGS": ""}
    command = ["go", "build", "-o", str(folder / "run"), "examples"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def _redirected(text: str) -> str:
    text = _ENGINE.sub("inputRawURL := engineURL", text.replace("package examples", "package main", 1))
    return _SECRET.sub(r"\1Password(secret)", text).replace("time.Sleep(", "pause(")
