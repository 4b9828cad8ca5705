"""The stage on which captures play: what is published goes to them and not to the backend.

The transaction of a ``TestCase`` never commits. So whatever was open when a capture began is taken for the test's own,
and a block that ends on top of it for a commit, as it is one at work: what waits for it and was not rolled back is
published then. What is sent outside of such blocks is published at once, as with autocommit.

Only our own deliveries are. Other hooks wait for ``captureOnCommitCallbacks(execute=True)``, as in any test.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import codec, publisher
from ..backends.base import Failure, StandIn, stand_ins
from ..bell import is_bell
from ..delivery import Delivery
from ..frame import frames_in, hand_over_frames
from ..signals import delivery_published
from .captured import CapturedDelivery

#: Django calls the class of its blocks private, but nothing public tells when a block within a TestCase ends.
_Atomic: Any = type(transaction.atomic())


class Audience(Protocol):
    """Who is told of what is published."""

    def captured(self, one: CapturedDelivery) -> None:
        """A delivery is published."""

    def settled(self) -> None:
        """A send is through, or a transaction has ended: now is the time to deliver at once."""


class Level:
    """One capture: its audience, and what was there when it began."""

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self._before = set(publisher.divide())
        self._open = {one: len(one.atomic_blocks) for one in connections.all(initialized_only=True)}
        #: The list of Django's hooks of a connection, and how many of them have been looked at.
        self._seen: WeakKeyDictionary[BaseDatabaseWrapper, tuple[list[Any], int]] = WeakKeyDictionary()

    def _is_committed(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether nothing is open but what was when the capture began, or is a TestCase's, and none of it is broken."""
        blocks: list[Any] = connection.atomic_blocks
        of_the_test = next((n for n, one in enumerate(blocks) if not one._from_testcase), len(blocks))  # noqa: SLF001
        return len(blocks) <= max(of_the_test, self._open.get(connection, 0)) and not connection.needs_rollback

    def publish_committed(self) -> None:
        """Publish what waits for a commit that is no real one, and will not come."""
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block or not self._is_committed(connection):
                continue
            hooks = connection.run_on_commit
            seen, count = self._seen.get(connection, (None, 0))
            # Django makes another list when it rolls a savepoint back.
            new = hooks[count:] if seen is hooks else list(hooks)
            self._seen[connection] = hooks, len(hooks)
            frames = [frame for frame in frames_in(new) if frame not in self._before]
            if frames:
                publisher.divide()
            if any(frame.deliveries or frame.packs for frame in frames):
                hand_over_frames(frames, connection.alias)

    def waiting(self) -> list[str]:
        """The receivers of what waits for the end of a block that is open."""
        return [
            one.receiver
            for connection in connections.all(initialized_only=True)
            for frame in frames_in(connection.run_on_commit)
            if frame not in self._before
            for one in frame.deliveries.values()
        ]


class Stage(StandIn):
    """Takes what is published, for all captures that are open."""

    #: Each delivery by itself, without batches.
    inline = True

    def __init__(self) -> None:
        self.levels: list[Level] = []
        #: The threads that are publishing what is committed.
        self._settling: set[int] = set()

    def publish(self, deliveries: Sequence[Delivery]) -> list[Failure]:
        """Give them to the captures in the form in which they would travel."""
        failures: list[Failure] = []
        for delivery in deliveries:
            if is_bell(delivery.text):
                continue  # rung for when they are delivered; who hears of the row is in ``_kept``
            try:
                payload = delivery.payload
            except Exception as error:  # noqa: BLE001 - reported as every backend does
                failures.append((delivery, error))
            else:
                self._give(CapturedDelivery(delivery, payload))
        return failures

    def _kept(self, delivery: Delivery, **kwargs: Any) -> None:
        """Hear of a durable delivery, whose doorbell may name others, or have none."""
        if delivery.kept is not None and stand_ins[-1] is self:
            self._give(CapturedDelivery(delivery, ""))

    def _give(self, one: CapturedDelivery) -> None:
        for audience in {id(level.audience): level.audience for level in self.levels}.values():
            audience.captured(one)

    def after_send(self) -> None:
        """Look whether what was sent is committed, as far as the test goes."""
        thread, last = threading.get_ident(), self.levels[-1:]
        if thread in self._settling or not last:
            return
        self._settling.add(thread)
        try:
            last[0].publish_committed()
        finally:
            self._settling.remove(thread)
        last[0].audience.settled()

    def enter(self, audience: Audience) -> None:
        """Begin a capture."""
        if not self.levels:
            stand_ins.append(self)
            delivery_published.connect(self._kept, weak=False, dispatch_uid=self)
            self._watch_blocks()
            # A database that a test may not use says what to do about it.
            codec.base.shows_causes = True
        self.levels.append(Level(audience))

    def leave(self) -> None:
        """End the last one that was begun."""
        self.levels.pop()
        publisher.divide()
        if not self.levels:
            stand_ins.remove(self)
            delivery_published.disconnect(dispatch_uid=self)
            _Atomic.__exit__ = self._leave_block
            codec.base.shows_causes = False

    def _watch_blocks(self) -> None:
        leave_block = self._leave_block = _Atomic.__exit__

        @functools.wraps(leave_block)
        def leave_and_look(block: Any, *error: Any) -> None:
            leave_block(block, *error)
            self.after_send()

        _Atomic.__exit__ = leave_and_look


stage = Stage()
