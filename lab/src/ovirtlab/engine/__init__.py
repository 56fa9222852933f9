# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for the oVirt Engine: REST, SSO and the rules behind them."""
