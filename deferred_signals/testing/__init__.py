"""The testing kit: capture deliveries, look at them, deliver them, and break them on purpose; see docs/testing.md."""

from .captured import CapturedDelivery
from .cases import DeferredSignalsTestCase
from .deliveries import Deliveries
from .faults import WorkerKilled
from .idempotence import assert_idempotent
from .modes import capture_deliveries, immediate_deliveries
from .running import Run
from .workers import WorkerDeliveries, celery_deliveries

__all__ = [
    "CapturedDelivery",
    "DeferredSignalsTestCase",
    "Deliveries",
    "Run",
    "WorkerDeliveries",
    "WorkerKilled",
    "assert_idempotent",
    "capture_deliveries",
    "celery_deliveries",
    "immediate_deliveries",
]
