"""The three ways in which a test can have its deliveries: captured, run at once, or run by a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from django.test.utils import TestContextDecorator

from .deliveries import LIMIT, Deliveries
from .running import Run, raise_death, run_once


@contextmanager
def capture_deliveries() -> Iterator[Deliveries]:
    """Capture what is published in this block, in all threads; nothing is run unless ``deliver()`` is called."""
    deliveries = Deliveries()
    with deliveries.capturing():
        yield deliveries


class ImmediateDeliveries(Deliveries):
    """Deliveries that are run as soon as they are published; what one sends while it runs comes after it."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: list[Run] = []
        self._count = 0

    def settled(self) -> None:
        """Run what waits, unless that is being done already."""
        if self._is_delivering:
            return
        with self._delivering():
            moves = True
            while moves and (waiting := self.waiting) and self._count < LIMIT:
                moves = False
                for one in waiting:
                    runs = run_once(one, others=self._by_id)
                    self.dead += [run for run in runs if run.outcome.state == "dead"]
                    self._count += len(runs)
                    moves |= bool(runs)

    def conclude(self) -> None:
        """Raise what the first dead delivery has died of; AssertionError if there was no end."""
        if self.dead:
            raise_death(self.dead[0], self.dead[1:])
        if self._count >= LIMIT:
            self._fail(f"There is no end after {self._count} runs.")


class immediate_deliveries(TestContextDecorator):  # noqa: N801 - a block, as those of contextlib
    """Run deliveries as soon as they are published; a context manager, and a decorator of tests and of test cases.

    Within a ``TestCase`` that is at the end of the outermost block of ``atomic()`` that the code under test opens.
    Retries follow at once. What kills a delivery reaches the test at the end of the block, not the code that sent it;
    with ``raises=False`` it does not.
    """

    def __init__(self, *, raises: bool = True) -> None:
        super().__init__()
        self._raises = raises
        self._open: list[tuple[ImmediateDeliveries, ExitStack]] = []

    def enable(self) -> ImmediateDeliveries:
        """Begin."""
        deliveries, stack = ImmediateDeliveries(), ExitStack()
        stack.enter_context(deliveries.capturing())
        self._open.append((deliveries, stack))
        return deliveries

    def disable(self) -> None:
        """End, and raise."""
        self._end(raises=self._raises)

    def _end(self, *, raises: bool) -> None:
        deliveries, stack = self._open.pop()
        deliveries.settled()
        stack.close()
        if raises:
            deliveries.conclude()

    def __enter__(self) -> ImmediateDeliveries:  # type: ignore[override]  # the stubs know what Django's own return
        return self.enable()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        # What the test itself has raised says more.
        self._end(raises=self._raises and error is None)
