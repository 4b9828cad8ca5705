"""The order in which captured deliveries are run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from .captured import CapturedDelivery

#: A seed for an order by chance, or what makes the order of what waits: ``reversed``, for instance.
Order = int | Callable[[list[CapturedDelivery]], Iterable[CapturedDelivery]]


def in_order(waiting: list[CapturedDelivery], order: Order | None) -> list[CapturedDelivery]:
    """What waits, in that order. Raises ValueError when something is missing from it, or is there twice."""
    if order is None:
        return waiting
    if isinstance(order, int):
        return random.Random(order).sample(waiting, len(waiting))  # noqa: S311 - to be repeated, not to be secret
    found = list(order([*waiting]))
    if {id(one) for one in found} != {id(one) for one in waiting} or len(found) != len(waiting):
        raise ValueError("order= must return the deliveries that it was given, each of them once.")
    return found
