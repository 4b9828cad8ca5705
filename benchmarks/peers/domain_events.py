"""django-domain-events[celery]: events are rows of the sender's transaction; a relay publishes them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from django.core.management import call_command
from django.db import connections, transaction
from django_domain_events import DURABLE, event, fire, receiver
from django_domain_events.delivery.deliver import deliver_pending
from django_domain_events.models import DeliveryRecord, EventRecord

from ..models import Row
from ..routers import lead_peers_to
from ..stage import Broker
from ..stamps import stamp


@event
@dataclass(frozen=True, slots=True)
class RowSaved:
    """What the event tells."""

    row_id: int


@receiver(RowSaved, mode=DURABLE, site="task")
def handle(told: RowSaved) -> None:
    """The receiver; what it needs of the row it fetches itself."""
    stamp(Row.objects.get(pk=told.row_id).pk)


def connect_on_worker() -> None:
    """Register its task, as Celery's ``imports`` would."""
    import_module("django_domain_events.delivery.celery_backend")


class Sender:
    """Its sender's side; its tables are in the database of the transaction."""

    name = "django-domain-events[celery] (rows only, its relay publishes)"
    by_celery = True
    rows = Row

    def __init__(self, broker: Broker, alias: str = "default") -> None:
        self.broker, self.alias = broker, alias

    def prepare(self) -> None:
        """Make its tables, and lead it to them."""
        lead_peers_to(self.alias)
        self.broker.stage.once(
            (__name__, self.alias),
            lambda: call_command("migrate", "django_domain_events", database=self.alias, verbosity=0),
        )
        self._empty()

    def _empty(self) -> int:
        found = DeliveryRecord.objects.count()
        with connections[self.alias].cursor() as cursor:
            for model in (DeliveryRecord, EventRecord):
                cursor.execute(f"DELETE FROM {model._meta.db_table}")
        return found

    def send(self, row: Row) -> object:
        """Write the event down."""
        return fire(RowSaved(row_id=row.pk))

    def expect(self, count: int) -> None:
        """Remove its rows."""
        found = self._empty()
        if found != count:
            raise RuntimeError(f"{found} deliveries were written where {count} should have been.")

    def publish(self, rows: Sequence[Row]) -> None:
        """Write all down in a transaction, and hand them to Celery as its relay does."""
        with transaction.atomic(using=self.alias):
            for row in rows:
                self.send(row)
        deliver_pending()
