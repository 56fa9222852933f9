# SPDX-License-Identifier: GPL-3.0-or-later
"""Image transfers: a ticket at a host's imageio for one disk, watched by the engine until it is over."""
