# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job from the outside: a lab, the product's own services in it, and the product's own command line."""
