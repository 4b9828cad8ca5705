"""Gauges of the outbox for Prometheus, asked of the database at each scrape; extra ``prometheus``.

Register it in the one process that is scraped for them: ``REGISTRY.register(OutboxCollector())``. The oldest pending
age comes first, for it is the one to be woken by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db import Error as DatabaseDriverError
from django.db import connections
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from deferred_signals.exceptions import ConfigurationError

from . import figures

#: Their names, less ``deferred_signals_outbox_``, and what they say.
GAUGES = {
    "oldest_pending_seconds": "For how long the oldest delivery has been due that waits and could run.",
    "pending": "Deliveries that wait.",
    "running": "Deliveries that run.",
    "dead": "Dead deliveries that are kept.",
    "parked_keys": "Keys of order_by that a dead delivery stops.",
    "relay_up": "Whether a relay leads.",
    "relay_age_seconds": "Seconds since the leading relay's last sign of life.",
    "up": "Whether the database has answered.",
}


class OutboxCollector(Collector):
    """Asks these databases, by default all that have the tables."""

    def __init__(self, aliases: Sequence[str] | None = None) -> None:
        self._aliases = aliases

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The gauges without a value: to register it asks no database."""
        return _families().values()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What the scrape gets. Never raises for a database: it has no gauges then, but ``up``, which is 0."""
        found = _families()
        for alias in figures.aliases() if self._aliases is None else self._aliases:
            connection = connections[alias]
            was_open = connection.connection is not None
            try:
                values = _ask(alias)
            except ConfigurationError:
                continue  # no tables
            except DatabaseDriverError:
                values = {"up": 0.0}
            finally:
                # A scrape has a thread of its own, in which nobody else would close it.
                if not was_open and not connection.in_atomic_block:
                    connection.close()
            for name, value in values.items():
                found[name].add_metric([alias], value)
        return found.values()


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(f"deferred_signals_outbox_{name}", text, labels=["database"])
        for name, text in GAUGES.items()
    }


def _ask(alias: str) -> dict[str, float]:
    figures.check(alias)
    open_ones, relay = figures.open_ones(alias), figures.relay(alias)
    values: dict[str, float] = {
        "oldest_pending_seconds": figures.oldest(alias),
        "pending": open_ones.pending,
        "running": open_ones.running,
        "dead": figures.dead(alias),
        "parked_keys": figures.parked_keys(alias),
        "relay_up": float(relay.leads),
        "up": 1.0,
    }
    return values if relay.age is None else {**values, "relay_age_seconds": relay.age}
