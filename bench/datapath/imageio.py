# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the client of ovirt-imageio: `python -m bench.datapath.imageio URL IMAGE CA_FILE [BACKING]`.

On the host of the daemon it uses the daemon's unix socket, from elsewhere TLS.
"""

from __future__ import annotations

import sys

from ovirt_imageio import client


def main() -> None:
    """Download a disk, incrementally when there is a backing image."""
    url, image, ca_file, *backing = sys.argv[1:]
    more = {"incremental": True, "backing_file": backing[0], "backing_format": "qcow2"} if backing else {}
    client.download(url, image, ca_file, fmt="qcow2", **more)


if __name__ == "__main__":
    main()
