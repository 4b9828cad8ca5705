"""Running a message on the worker that may be a batch: each member for itself, with an outcome of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple

from . import batch, conf, context, registry, time_limits
from .attempt import Around, finish_unopened, run, run_opened
from .calling import Passes, everything
from .delivery import Delivery
from .envelope import Envelope, read, seal
from .exceptions import DecodeError, NewerWire, NotYetKnown, OpenError, UnknownName
from .handing_on import handing_on, next_of, take
from .open_transactions import none_left_open, open_transactions
from .outcome import Outcome, held_up_unread
from .prefetch import Rows
from .strict_json import dump

#: A delivery (None when it could not be opened) and how its run ended.
Run = tuple[Delivery | None, Outcome]

#: Seconds after which no further member of a batch is begun with; the rest is published anew. So a project's time limit
#: for a message is about few receivers, a worker that is shut down is done soon, and others can help.
LONGEST = 1.0


class Member(NamedTuple):
    """One delivery of a batch, and the JSON that it was read from."""

    envelope: Envelope
    data: Any

    @property
    def text(self) -> str:
        """Its text, not yet signed."""
        return dump(self.data)


class Publish(NamedTuple):
    """How members of a batch leave again; both tell whether the broker has taken them."""

    #: As one batch.
    together: Callable[[Sequence[Member]], bool]
    #: One by one, each as it is.
    alone: Callable[[Sequence[Member]], bool]


def run_all(
    payload: Any, *, redelivered: bool = False, passes: Passes = everything, publish: Publish | None = None
) -> list[Run]:
    """Run the delivery or the deliveries of a payload once; raises and returns as ``attempt.run``, for each of them.

    ``publish`` hands on what this process should not run, or not yet; without it, it runs all of it. A batch that
    is ``redelivered`` is not run: its members leave one by one, so what has ended a worker meets none of the others
    again.
    """
    if not batch.is_batch(payload):
        return [run(payload, redelivered=redelivered, passes=passes)]
    try:
        members = batch.read(payload)
    except OpenError as error:
        return [finish_unopened(Outcome("dead", error, str(error)), payload)]
    except NewerWire as error:
        return [finish_unopened(held_up_unread(error, conf.current().release_window), payload)]
    ended: list[Run] = []
    opened: deque[Member] = deque()
    for data in members:
        whole = partial(_payload, data)
        try:
            envelope = read(data)
        except OpenError as error:
            ended.append(finish_unopened(Outcome("dead", error, str(error)), whole))
        except NewerWire as error:
            ended.append(finish_unopened(held_up_unread(error, conf.current().release_window), whole))
        else:
            if redelivered:
                ended.append(run_opened(envelope, whole, redelivered=True, passes=passes))
            else:
                opened.append(Member(envelope, data))
    return ended + _run_members(opened, passes, publish)


def _run_members(members: deque[Member], passes: Passes, publish: Publish | None) -> list[Run]:
    if not members:
        return []
    limits = _limits(members[0].envelope)
    if limits is not None and not time_limits.can_be_had():
        if publish is not None and publish.alone([*members]):
            return []
        limits = None  # there is nobody to do better
    before = open_transactions()
    around = partial(none_left_open, before) if limits is None else partial(_limited, before, limits)
    rows = Rows([member.envelope for member in members])
    ended: list[Run] = []
    began = time.monotonic()

    def hand_on(part: list[Member]) -> bool:
        return publish is not None and publish.together(part)

    def run_on() -> None:
        nonlocal began
        while (member := next_of(members)) is not None:
            fetch = rows.fetch_for(member.envelope, len(ended))
            whole = partial(_payload, member.data)
            ended.append(run_opened(member.envelope, whole, passes=passes, around=around, fetch=fetch))
            if publish and members and time.monotonic() - began > LONGEST and (rest := take(members)):
                if hand_on(rest):
                    return
                members.extend(rest)
                began = time.monotonic()  # not offered again for each, which may take as long as a broker hangs

    def run_all_of_them() -> None:
        # Most of them have the same context, and each begins with a copy of this one.
        with suppress(DecodeError, UnknownName, IndexError):
            context.enter_djangos(members[0].envelope.context)
        with rows.watched():
            with handing_on(members, lambda: len(ended), hand_on) if publish else nullcontext():
                run_on()
            # What could not be handed on has come back.
            run_on()

    copy_context().run(run_all_of_them)
    return ended


@contextmanager
def _limited(before: Sequence[Any], limits: Around) -> Iterator[None]:
    with none_left_open(before), limits():
        yield


def _payload(data: Any) -> str:
    return seal(dump(data))


def _limits(envelope: Envelope) -> Around | None:
    """The time limits of a receiver, as a block to call it in; None if it has none."""
    try:
        options = registry.get(envelope.receiver).options_for(envelope.signal)
    except NotYetKnown:
        return None
    if options.time_limit is None and options.soft_time_limit is None:
        return None
    return partial(time_limits.limited, options.soft_time_limit, options.time_limit)
