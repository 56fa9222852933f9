# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes no VM uses, and the NBD servers that give them out."""

import subprocess

import pytest

from ovirtlab.host.api import HostError
from ovirtlab.host.local import LocalHost

MIB = 1 << 20


def qemu_img(*words) -> str:
    return subprocess.run(["qemu-img", *map(str, words)], check=True, timeout=90, capture_output=True, text=True).stdout


def test_volumes_are_made_copied_grown_and_removed(bench, run):
    async def scenario():
        async with bench.host() as host:
            path = bench.path("images/a/b")
            await host.create_volume(path, "raw", MIB, preallocate=True)
            assert path.stat().st_blocks * 512 >= MIB
            with pytest.raises(HostError, match="exists already"):
                await host.create_volume(path, "qcow2", MIB)
            path.write_bytes(b"x" * MIB)
            copy = bench.path("copy")
            await host.copy_volume(path, copy, "qcow2")
            assert "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", path, copy)
            await host.resize_volume(copy, "qcow2", 2 * MIB)
            assert "2 MiB" in qemu_img("info", copy)
            await host.verify_volume(copy, "qcow2")
            await host.delete_volume(copy)
            await host.delete_volume(copy)
            assert not copy.exists()

    run(scenario())


def test_a_copy_takes_bitmaps_along_when_it_should(bench, run):
    async def scenario():
        async with bench.host() as host:
            path = bench.path("images/a/b")
            await host.create_volume(path, "qcow2", MIB)
            await host.add_bitmap(path, "mark")
            with_them, without = bench.path("other/images/a/b"), bench.path("copy")
            await host.copy_volume(path, with_them, "qcow2", bitmaps=True)
            await host.copy_volume(path, without, "qcow2")
            assert await host.bitmaps(with_them) == {"mark": ("auto",)}
            assert await host.bitmaps(without) == {}

    run(scenario())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["-o", "compat=0.10", "{path}", "1M"], "unsupported version"),
        (["-b", "{base}", "-F", "qcow2", "{path}"], "backing file"),
    ],
)
def test_an_upload_is_verified(bench, run, options, complaint):
    path, base = bench.path("upload"), bench.path("base")
    qemu_img("create", "-q", "-f", "qcow2", base, "1M")
    qemu_img("create", "-q", "-f", "qcow2", *(word.format(path=path, base=base) for word in options))

    async def scenario():
        async with bench.host() as host:
            with pytest.raises(HostError, match=complaint):
                await host.verify_volume(path, "qcow2")

    run(scenario())


def test_a_raw_file_is_no_qcow2(bench, run):
    path = bench.path("upload")
    path.write_bytes(bytes(MIB))

    async def scenario():
        async with bench.host() as host:
            await host.verify_volume(path, "raw")
            with pytest.raises(HostError):
                await host.verify_volume(path, "qcow2")

    run(scenario())


def test_an_nbd_server_takes_an_upload_and_gives_it_out(bench, run):
    path, source = bench.path("disk"), bench.path("source")
    source.write_bytes(b"s" * MIB)

    async def scenario():
        async with bench.host() as host:
            await host.create_volume(path, "qcow2", MIB)
            await host.add_bitmap(path, "cp1")
            url = await host.start_nbd_server("t1", path, "qcow2", read_only=False)
            socket = bench.directory / "host1/nbd/t1.sock"
            assert url == f"nbd:unix:{socket}"
            with pytest.raises(HostError, match="runs already"):
                await host.start_nbd_server("t1", path, "qcow2", read_only=False)
            qemu_img("convert", "-n", "-f", "raw", "-O", "raw", source, f"nbd+unix:///?socket={socket}")
            await host.stop_nbd_server("t1")
            await host.stop_nbd_server("t1")
            assert not socket.exists()

            await host.start_nbd_server("t2", path, "qcow2", read_only=True, bitmap="cp1")
            given = qemu_img(
                "compare", "-f", "raw", "-F", "raw", source, f"nbd+unix:///?socket={socket.parent}/t2.sock"
            )
            assert "identical" in given
            server = f"server.type=unix,server.path={socket.parent}/t2.sock"
            image = f"driver=nbd,{server},x-dirty-bitmap=qemu:dirty-bitmap:cp1"
            assert '"data": false' in qemu_img("map", "--output=json", "--image-opts", image)
            await host.stop_nbd_server("t2")

    run(scenario())


def test_an_nbd_server_that_cannot_start_says_why(bench, run):
    path = bench.path("disk")

    async def scenario():
        async with bench.host() as host:
            await host.create_volume(path, "qcow2", MIB)
            with pytest.raises(HostError, match="no-such-bitmap"):
                await host.start_nbd_server("t1", path, "qcow2", read_only=True, bitmap="no-such-bitmap")
            await host.start_nbd_server("t1", path, "qcow2", read_only=True)

    run(scenario())


def test_a_directory_too_long_for_sockets_is_refused(tmp_path):
    with pytest.raises(HostError, match="shorter"):
        LocalHost(
            name="h",
            id="h",
            address="127.0.0.1",
            imageio_port=0,
            directory=tmp_path / ("x" * 100),
            control_socket=tmp_path / "s",
            netns=None,
            cache=tmp_path,
        )
