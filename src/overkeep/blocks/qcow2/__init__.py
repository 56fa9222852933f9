# SPDX-License-Identifier: GPL-3.0-or-later
"""QCOW2 images: layout on disk, the reader of chains, the stream writer."""
