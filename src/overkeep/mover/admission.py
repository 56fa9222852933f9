# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision whether an order makes sense on this host, before anything is done for it."""

from __future__ import annotations

from collections.abc import Collection

from overkeep.mover.errors import OrderRefused, WrongHost
from overkeep.mover.orders import CopyOrder, Image, Order


def admit(order_id: str, order: Order, *, host: str, targets: Collection[str]) -> None:
    """Raise `WrongHost` or `OrderRefused` unless `order` can be meant for this mover."""
    if order.host != host:
        raise WrongHost(order=order_id, meant=order.host, host=host)
    reason, todo = _fault(order, targets)
    if reason:
        raise OrderRefused(order=order_id, reason=reason, todo=todo)


def _fault(order: Order, targets: Collection[str]) -> tuple[str, str]:
    target = _target(order)
    if target not in ("", *targets):
        known = ", ".join(sorted(targets))
        return f"this host has no target {target!r} (it has {known})", "add it to the mover's settings"
    return _copy_fault(order) if isinstance(order, CopyOrder) else ("", "")


def _target(order: Order) -> str:
    """The target that an order works on, empty when it names none."""
    if not isinstance(order, CopyOrder):
        return order.target
    return next((end.target for end in (order.source, order.sink) if isinstance(end, Image)), "")


def _copy_fault(order: CopyOrder) -> tuple[str, str]:
    if order.source.kind == order.sink.kind:
        return f"both ends are of kind {order.sink.kind}", "give one access and one image"
    image = order.sink if isinstance(order.sink, Image) else order.source
    assert isinstance(image, Image)
    if image.backing == image.name:
        return "the image is its own backing image", "name the parent"
    if (order.dirty or order.compare) and (image is not order.sink or image.backing is None):
        return "changed blocks need an image to write with a backing image", "name the parent or copy everything"
    if order.dirty and order.compare:
        return "it asks for tracked changes and for compared ones", "choose one"
    if order.differential and image is order.sink:
        return "only a disk that is restored can be written differentially", "leave it out for a backup"
    return "", ""
