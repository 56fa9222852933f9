# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision whether an order makes sense on this host, before anything is done for it."""

from __future__ import annotations

from collections.abc import Collection

from overkeep.mover.errors import OrderRefused, WrongHost
from overkeep.mover.orders import CopyOrder, Image


def admit(order_id: str, order: CopyOrder, *, host: str, targets: Collection[str]) -> None:
    """Raise `WrongHost` or `OrderRefused` unless `order` can be meant for this mover."""
    if order.host != host:
        raise WrongHost(order=order_id, meant=order.host, host=host)
    reason, todo = _fault(order, targets)
    if reason:
        raise OrderRefused(order=order_id, reason=reason, todo=todo)


def _fault(order: CopyOrder, targets: Collection[str]) -> tuple[str, str]:
    if order.source.kind == order.sink.kind:
        return f"both ends are of kind {order.sink.kind}", "give one access and one image"
    image = order.sink if isinstance(order.sink, Image) else order.source
    assert isinstance(image, Image)
    if image.target not in targets:
        known = ", ".join(sorted(targets))
        return f"this host has no target {image.target!r} (it has {known})", "add it to the mover's settings"
    if image.backing == image.name:
        return "the image is its own backing image", "name the parent"
    if (order.dirty or order.compare) and (image is not order.sink or image.backing is None):
        return "changed blocks need an image to write with a backing image", "name the parent or copy everything"
    if order.dirty and order.compare:
        return "it asks for tracked changes and for compared ones", "choose one"
    if order.differential and image is order.sink:
        return "only a disk that is restored can be written differentially", "leave it out for a backup"
    return "", ""
