"""Deliveries that wait for the commit of their database, by the savepoint frames of the transaction that is open.

Each frame that has deliveries registers one commit hook.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from .delivery import Delivery
from .frame import Frame, Hooks


class Buffer:
    """The frames of the transaction that is open on one database connection, by their place in it."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.hooks = Hooks([])
        #: In the order in which they were made.
        self.stack: list[Frame] = []
        self.frames: dict[Any, Frame] = {}
        #: By what it is about, the frames to which deliveries went, the last one at the end.
        self.last: dict[Hashable, list[Frame]] = {}

    def earlier(self, delivery: Delivery, connection: BaseDatabaseWrapper) -> Delivery | None:
        """The last delivery about the same subject in the transaction that is open, unless it was rolled back."""
        if delivery.subject is None:
            return None
        self._refresh(connection)
        about = delivery.subject.about
        frame = self._last(about)
        number = None if frame is None else frame.subjects.get(about)
        return None if frame is None or number is None else frame.deliveries[number]

    def hold(self, delivery: Delivery, connection: BaseDatabaseWrapper) -> Delivery:
        """Keep a delivery until the transaction that is open on the connection commits; return what is kept.

        Uses three attributes of the connection that Django does not document (test_publisher fails when they move),
        because nothing public tells savepoints and transactions apart.
        """
        self._refresh(connection)
        ids = connection.savepoint_ids
        place = tuple([sid for sid in ids if sid is not None]) if ids else ()  # a generator takes longer
        about = None if delivery.subject is None else delivery.subject.about
        last = None if about is None else self._last(about)
        if connection.atomic_blocks and getattr(connection.atomic_blocks[0], "_from_testcase", False):
            # The transaction of a TestCase never commits. Each delivery gets a hook, for captureOnCommitCallbacks shows
            # a test those that were registered inside its block.
            frame = self._begin(Frame(self.alias, place, None), connection)
            # Only from a frame that cannot stay if this one is rolled back.
            if last is not None and last.place[: len(place)] == place:
                for _, moved in last.take()[1]:
                    frame.add(moved, is_next=False)
                last = frame
        else:
            found = self.frames.get(place)
            if found is None:
                found = self.frames[place] = self._begin(Frame(self.alias, place, self.hooks), connection)
            frame = found
        kept = frame.add(delivery, is_next=last is frame)
        if about is not None:
            frames = self.last.setdefault(about, [])
            if not frames or frames[-1] is not frame:
                frames.append(frame)
        return kept

    def divide(self) -> list[Frame]:
        """Have what is held from here on be none with what waits now; return the frames of that."""
        self.frames, self.last = {}, {}
        return [*self.stack]

    def _begin(self, frame: Frame, connection: BaseDatabaseWrapper) -> Frame:
        connection.on_commit(frame.on_commit)
        frame.index = max(0, len(connection.run_on_commit) - 1)
        self.stack.append(frame)
        return frame

    def _last(self, about: Hashable) -> Frame | None:
        """The frame to which the last delivery about this went, of those that are there."""
        frames = self.last.get(about, [])
        while frames and frames[-1].is_gone:
            frames.pop()
        return frames[-1] if frames else None

    def _refresh(self, connection: BaseDatabaseWrapper) -> None:
        """Forget what is gone: this is another transaction, or the list that Django made at a savepoint's rollback.

        That takes out what was registered since the savepoint was begun, so all before it stands where it stood. To
        look through the list each time would be quadratic.
        """
        entries = connection.run_on_commit
        if self.hooks.entries is entries:
            return
        while self.stack:
            frame = self.stack[-1]
            if frame.stands_in(entries):
                self.hooks.entries = entries
                return
            self.stack.pop()
            frame.is_gone = True
            if self.frames.get(frame.place) is frame:
                del self.frames[frame.place]
        self.hooks, self.last = Hooks(entries), {}
