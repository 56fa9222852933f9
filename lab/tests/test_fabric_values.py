# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions of the fabric as tables: mount options, error numbers, mountinfo, subnets."""

from __future__ import annotations

import errno
import ipaddress
from pathlib import Path

import pytest

from ovirtlab.fabric import mounts, net
from ovirtlab.fabric.commands import CommandError
from ovirtlab.fabric.nfsfuse.status import errno_of
from ovirtlab.fabric.nfsoptions import BadOption, Options, parse_options
from ovirtlab.ledger import Ledger, lab_id, start_time


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", Options()),
        ("vers=3,hard,nolock,proto=tcp", Options()),
        ("port=12049,mountport=12048", Options(port=12049, mount_port=12048)),
        ("soft", Options(soft_seconds=180.0)),
        ("soft,timeo=20,retrans=1", Options(soft_seconds=4.0)),
        ("soft,hard", Options()),
        ("hard,soft,timeo=10,retrans=0", Options(soft_seconds=1.0)),
        ("ro", Options(read_only=True)),
        ("ro,rw", Options()),
        ("rw,ro", Options(read_only=True)),
    ],
)
def test_mount_options(text: str, options: Options):
    assert parse_options(text) == options


@pytest.mark.parametrize("text", ["vers=4", "vers=4.2", "proto=udp", "sec=krb5", "port=x", "colour=red", "timeo"])
def test_mount_options_that_cannot_be_kept_are_refused(text: str):
    with pytest.raises(BadOption):
        parse_options(text)


@pytest.mark.parametrize(
    ("result", "text", "number"),
    [
        (-errno.ENOENT, b"NFS: Lookup of /x failed with NFS3ERR_NOENT(-2)", errno.ENOENT),
        (-errno.EIO, b"NFS: COMMIT failed with NFS3ERR_IO(-5)", errno.EIO),
        (-errno.ERANGE, b"NFS: MKDIR of a/b failed with NFS3ERR_DQUOT(-34)", errno.EDQUOT),
        (-errno.EFAULT, b'pwrite call failed with "\x1c"', errno.ENOSPC),
        (-errno.EFAULT, b'pwrite call failed with "\x1e"', errno.EROFS),
        (-errno.EFAULT, b'pread call failed with "\x46"', errno.ESTALE),
        (-errno.EFAULT, b'pread call failed with "\x18\'"', errno.EAGAIN),
        (-errno.EFAULT, b'pwrite call failed with ""', errno.EIO),
        (-errno.EACCES, b"NFS: ACCESS denied. Required access r--.", errno.EACCES),
        (-errno.EIO, b"nfs_service failed", None),
        (-errno.EINTR, b"Command was cancelled", None),
        (-errno.EFAULT, b'pread call failed with "RPC ERROR: Failed to reconnect async"', None),
        (-errno.EFAULT, b"RPC ERROR: Failed to reconnect async", None),
    ],
)
def test_error_numbers(result: int, text: bytes, number: int | None):
    assert errno_of(result, text) == number


def test_mountinfo_with_escapes_and_optional_fields():
    (found,) = mounts.parse(
        r"154 27 0:39 / /mnt/a\040b rw shared:7 master:1 - fuse.nfs 10.0.0.1:/x rw,max_read=1" + "\n"
    )
    assert found == mounts.Mount(device="0:39", path=Path("/mnt/a b"), kind="fuse.nfs", source="10.0.0.1:/x")


def test_a_subnet_that_is_taken_is_not_chosen():
    first = net.free_subnet("000000", [])
    second = net.free_subnet("000000", [ipaddress.IPv4Network(f"{first[7]}/32")])
    assert first != second
    assert not first.overlaps(second)


def test_no_subnet_left_is_said():
    with pytest.raises(CommandError, match="no subnet"):
        net.free_subnet("abcdef", [ipaddress.IPv4Network("10.0.0.0/8")])


def test_loopback_addresses_differ_between_hosts_and_labs():
    one, other = net.loopback("00000a", ["a", "b"]), net.loopback("00000b", ["a", "b"])
    addresses = [one.server, one.root, *one.hosts.values(), other.server, other.root, *other.hosts.values()]
    assert len(set(addresses)) == 8
    assert all(ipaddress.IPv4Address(text).is_loopback for text in addresses)
    assert not one.isolated


def test_names_of_links_fit_the_kernel(tmp_path: Path):
    assert len(net.link_name(lab_id(tmp_path))) <= 15


def test_a_ledger_survives_a_line_cut_short(tmp_path: Path):
    ledger = Ledger(tmp_path)
    ledger.record("netns", "one")
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"kind": "netns", "na')
    assert [(entry.kind, entry.name) for entry in ledger.entries()] == [("netns", "one")]


def test_start_time_of_no_process():
    assert start_time(1) is not None
    assert start_time(2**22 + 1) is None
