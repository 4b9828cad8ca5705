"""What a test has captured: a sequence of deliveries, which it looks at, delivers, and makes assertions about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, overload

from asgiref.sync import sync_to_async

from .captured import CapturedDelivery
from .faults import CRASHES, Crash
from .matching import Where, in_none, matching, named, told
from .ordering import Order, in_order
from .running import Run, raise_death, run_again, run_once
from .stage import stage

#: Runs after which ``deliver()`` takes what it does for endless.
LIMIT = 1000


class Deliveries(Sequence[CapturedDelivery]):
    """The deliveries that were published while a test captured, in order."""

    def __init__(self) -> None:
        self._all: list[CapturedDelivery] = []
        self._is_delivering = False

    @overload
    def __getitem__(self, place: int) -> CapturedDelivery: ...
    @overload
    def __getitem__(self, place: slice) -> list[CapturedDelivery]: ...
    def __getitem__(self, place: int | slice) -> CapturedDelivery | list[CapturedDelivery]:
        return self._all[place]

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"<{len(self)} captured deliveries: {', '.join(one.receiver for one in self) or 'none'}>"

    # The stage's audience.

    def captured(self, one: CapturedDelivery) -> None:
        """Take a delivery that is published."""
        self._all.append(one)

    def settled(self) -> None:
        """Do nothing: the test says when it delivers."""

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Capture what is published meanwhile."""
        stage.enter(self)
        try:
            yield
        finally:
            stage.leave()

    # For tests.

    @property
    def waiting(self) -> list[CapturedDelivery]:
        """Those that are still to be run."""
        return [one for one in self if one.is_waiting]

    def clear(self) -> None:
        """Forget what was captured so far: what the test has only prepared."""
        self._all.clear()

    def to(
        self,
        receiver: Any = None,
        /,
        *,
        sender: Any = ...,
        signal: Any = None,
        where: Where | None = None,
        **kwargs: Any,
    ) -> list[CapturedDelivery]:
        """Those to a receiver (the function or its name), and of these those that the rest fits, too.

        ``kwargs`` are arguments of the signal that must be equal; ``where`` is asked for each captured delivery.
        """
        return matching(self, receiver, sender, signal, where, kwargs)

    def assert_deferred(
        self,
        receiver: Any = None,
        /,
        *,
        count: int | None = None,
        sender: Any = ...,
        signal: Any = None,
        where: Where | None = None,
        **kwargs: Any,
    ) -> list[CapturedDelivery]:
        """Fail unless there are such deliveries: ``count`` of them, or one at least; return them.

        The rest says which, as for ``to``.
        """
        found = matching(self, receiver, sender, signal, where, kwargs)
        if len(found) != count if count is not None else not found:
            wanted = "No delivery" if count is None else f"Not {count} but {len(found)} deliveries"
            self._fail(f"{wanted} {named(receiver, sender, signal, where, kwargs)}".rstrip())
        return found

    def refute_deferred(
        self,
        receiver: Any = None,
        /,
        *,
        sender: Any = ...,
        signal: Any = None,
        where: Where | None = None,
        **kwargs: Any,
    ) -> None:
        """Fail if there are such deliveries; without arguments, if there are any; for an argument that none has."""
        to_it = [] if receiver is None or not kwargs else matching(self, receiver, ..., signal, None, {})
        if strange := in_none(to_it, kwargs):
            self._fail(f"Nothing is refuted: no delivery {named(receiver, ..., signal, None, {})} has {strange}.")
        if found := matching(self, receiver, sender, signal, where, kwargs):
            self._fail(f"Unwanted: {len(found)} deliveries {named(receiver, sender, signal, where, kwargs)}".rstrip())

    def _fail(self, text: str) -> NoReturn:
        raise AssertionError(f"{text}\n{told(self, stage.levels[-1].waiting() if stage.levels else [])}")

    def deliver(
        self,
        receiver: Any = None,
        /,
        *,
        once: bool = False,
        raises: bool = True,
        duplicate: bool = False,
        crash: Crash | None = None,
        order: Order | None = None,
        limit: int = LIMIT,
    ) -> list[Run]:
        """Run what waits, and what its receivers send in turn, as workers would; return how each run has ended.

        Retries follow at once; countdowns are not waited for. ``receiver``: only those to it; ``once``: each that waits
        now, one run. A delivery that ends dead raises what its receiver has raised, unless ``raises`` is false.
        Faults: ``duplicate`` runs each a second time when it has ended, ``crash="before"`` or ``"after"`` the receiver
        loses the worker of each first run, ``order`` is a seed, or returns the list of what waits in another order.
        Raises AssertionError when there is no end after ``limit`` runs, or when rows wait for what will not come.
        """
        if crash is not None and crash not in CRASHES:
            raise ValueError(f"crash= is 'before' or 'after' (the receiver), not {crash!r}.")
        runs: list[Run] = []
        begun: set[str] = set()

        def note(made: Iterable[Run]) -> bool:
            made = list(made)
            runs.extend(made)
            for run in made:
                if raises and run.outcome.state == "dead":
                    raise_death(run)
            if len(runs) >= limit and not once:
                self._fail(f"There is no end after {len(runs)} runs, the last was of {runs[-1].delivery.receiver}.")
            return bool(made)

        with self._delivering():
            while waiting := matching(self.waiting, receiver, ..., None, None, {}):
                moves = False
                for one in in_order(waiting, order):
                    if not one.is_waiting:
                        continue  # a later one of its key counts
                    moves |= note(run_once(one, None if one.id in begun else crash, self._by_id))
                    begun.add(one.id)
                    if duplicate and not one.is_waiting and not one.is_durable:
                        note(run_again(one))
                if once:
                    break
                if not moves:
                    if raises:
                        self._fail(f"{len(waiting)} rows wait for others of their keys, which are not captured.")
                    break
        return runs

    async def adeliver(self, receiver: Any = None, /, **how: Any) -> list[Run]:
        """Do the same in a coroutine."""
        return await sync_to_async(self.deliver)(receiver, **how)

    def _by_id(self, key: str) -> CapturedDelivery | None:
        return next((one for one in self if one.id == key), None)

    @contextmanager
    def _delivering(self) -> Iterator[None]:
        before, self._is_delivering = self._is_delivering, True
        try:
            with self.capturing():
                yield
        finally:
            self._is_delivering = before
