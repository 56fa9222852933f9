# SPDX-License-Identifier: GPL-3.0-or-later
"""The things the engine keeps of its inventory, one mutable dataclass each; sizes in bytes, times in UTC."""
