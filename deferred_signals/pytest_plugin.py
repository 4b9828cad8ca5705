"""Fixtures for pytest. Loading this imports neither Django nor Celery; a project without Django notices nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import Deliveries, WorkerDeliveries


@pytest.fixture
def deliveries() -> Iterator[Deliveries]:
    """Capture the deliveries that the test publishes; ``deliveries.deliver()`` runs them."""
    from .testing import capture_deliveries  # noqa: PLC0415 - it imports Django, which needs settings

    with capture_deliveries() as captured:
        yield captured


@pytest.fixture
def immediate_deliveries() -> Iterator[Deliveries]:
    """Run the deliveries that the test publishes at once; what has killed one is raised when the test is over."""
    from .testing import immediate_deliveries as running  # noqa: PLC0415 - as above

    with running() as captured:
        yield captured


@pytest.fixture
def celery_deliveries(request: pytest.FixtureRequest) -> Iterator[WorkerDeliveries]:
    """Publish through Celery to the ``celery_worker`` of ``celery.contrib.pytest``; ``wait()`` waits for it.

    The test needs real commits: ``@pytest.mark.django_db(transaction=True)``.
    """
    from .testing import celery_deliveries as publishing  # noqa: PLC0415 - as above

    request.getfixturevalue("celery_worker")
    with publishing() as published:
        yield published
