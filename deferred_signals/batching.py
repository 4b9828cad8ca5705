"""Putting deliveries of one commit into batches: the option ``batch_size``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from . import batch, conf, encryption
from .delivery import Delivery
from .parts import in_parts


def batched(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """What to publish for deliveries that may leave together: each, or a batch in the place of its first member."""
    groups: dict[int, list[int]] = {}
    for place, delivery in enumerate(deliveries):
        if delivery.options.batch_size > 1:
            groups.setdefault(id(delivery.options), []).append(place)
    if not groups:
        return [*deliveries]
    standing: list[Delivery | None] = [*deliveries]
    for places in groups.values():
        # So many at least that several workers can have some of them.
        size = min(deliveries[places[0]].options.batch_size, -(-len(places) // conf.current().parallelism))
        sizes = (_bytes(deliveries[place].text) for place in places)
        for part in in_parts(places, sizes, size, conf.current().max_size):
            if len(part) > 1:
                first, *others = part
                standing[first] = _batch([deliveries[place] for place in part])
                for place in others:
                    standing[place] = None
    return [delivery for delivery in standing if delivery is not None]


def _bytes(text: str) -> int:
    """The bytes of a member and its comma; what encryption adds is in the room that a worker leaves."""
    return (len(text) if text.isascii() else len(text.encode())) + 1


def _batch(members: list[Delivery]) -> Delivery:
    """The delivery that carries others; it travels as one does."""
    first = members[0]
    texts = [member.text for member in members]
    if encryption.is_wanted(first.options):
        texts = [encryption.encrypted(text) for text in texts]
    return Delivery(
        id=str(uuid.uuid4()),
        receiver=f"{first.receiver} ({len(members)} deliveries)",
        signal=None,
        created=first.created,
        text=batch.text_of(texts),
        options=first.options.batch,
        members=tuple(members),
    )
