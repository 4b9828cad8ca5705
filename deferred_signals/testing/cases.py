"""The kit for unittest."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any

from .captured import CapturedDelivery
from .deliveries import Deliveries
from .idempotence import assert_idempotent
from .modes import capture_deliveries
from .running import Run


class DeferredSignalsTestCase(unittest.TestCase):
    """A mixin: each test captures what it publishes, from before its ``setUp``, in ``self.deliveries``.

    ``class SignUp(DeferredSignalsTestCase, TestCase)``; any of Django's test cases will do.
    """

    deliveries: Deliveries

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test, capturing."""
        with capture_deliveries() as self.deliveries:
            return super().run(result)

    def debug(self) -> None:
        """Run the test without a result, capturing."""
        with capture_deliveries() as self.deliveries:
            super().debug()

    def assertDeferred(self, receiver: Any = None, /, **which: Any) -> list[CapturedDelivery]:  # noqa: N802 - unittest's way
        """Call ``Deliveries.assert_deferred``."""
        return self.deliveries.assert_deferred(receiver, **which)

    def refuteDeferred(self, receiver: Any = None, /, **which: Any) -> None:  # noqa: N802
        """Call ``Deliveries.refute_deferred``."""
        self.deliveries.refute_deferred(receiver, **which)

    def assertIdempotent(self, delivery: CapturedDelivery, *, state: Callable[[], Any]) -> None:  # noqa: N802
        """Call ``assert_idempotent``."""
        assert_idempotent(delivery, state=state)

    def deliver(self, receiver: Any = None, /, **how: Any) -> list[Run]:
        """Call ``Deliveries.deliver``."""
        return self.deliveries.deliver(receiver, **how)

    async def adeliver(self, receiver: Any = None, /, **how: Any) -> list[Run]:
        """Call ``Deliveries.adeliver``."""
        return await self.deliveries.adeliver(receiver, **how)
