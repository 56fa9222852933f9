# SPDX-License-Identifier: GPL-3.0-or-later
"""What callers ask for, other than jobs: each desk reads and changes one kind of thing."""
