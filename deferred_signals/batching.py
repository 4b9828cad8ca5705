"""Putting deliveries of one commit into batches: the option ``batch_size``."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from . import batch, conf, encryption
from .delivery import Delivery
from .strict_json import size_of


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
        for part in _parts(deliveries, places, size):
            if len(part) > 1:
                first, *others = part
                standing[first] = _batch([deliveries[place] for place in part])
                for place in others:
                    standing[place] = None
    return [delivery for delivery in standing if delivery is not None]


def _parts(deliveries: Sequence[Delivery], places: list[int], size: int) -> Iterator[list[int]]:
    part: list[int] = []
    length, largest, shared = 0, conf.current().max_size, ""
    # Those that are encrypted share nothing. What a token is longer than its text is in the room that a worker leaves.
    is_sharing = not encryption.is_wanted(deliveries[places[0]].options)
    for place in places:
        one = deliveries[place]
        if part:
            more = size_of(one.own if is_sharing and one.shared == shared else one.text) + 1
            if len(part) < size and length + more <= largest:
                part.append(place)
                length += more
                continue
            yield part
        part, length, shared = [place], size_of(one.text), one.shared
    yield part


def _batch(members: list[Delivery]) -> Delivery:
    """The delivery that carries others; it travels as one does."""
    first = members[0]
    if encryption.is_wanted(first.options):
        text = batch.text_of(encryption.encrypted(member.text) for member in members)
    else:
        shared = first.shared
        text = batch.text_of((one.own if one.shared == shared else one.text for one in members), shared)
    return Delivery(
        id=str(uuid.uuid4()),
        receiver=f"{first.receiver} ({len(members)} deliveries)",
        signal=None,
        at=first.at,
        own=text,
        options=first.options.batch,
        members=tuple(members),
    )
