"""Deferred receivers that note in which tenant and in which trace they run."""

from django.db import connection
from django.db.models.signals import post_save
from opentelemetry import trace

from deferred_signals import Signal, receiver

from ...journal import note
from .models import Entry, Receipt

outside = Signal()
filed = Signal()


@receiver(post_save, sender=Entry, deferred=True)
def write_receipt(sender, instance, **kwargs):
    Receipt.objects.create(text=f"for {instance.text}")
    note("write_receipt", schema=connection.schema_name, text=instance.text)


@receiver(outside, deferred=True)
def look_around(sender, **kwargs):
    with trace.get_tracer(__name__).start_as_current_span("look around"):
        pass
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        note("look_around", schema=connection.schema_name, really=cursor.fetchone()[0])


@receiver(filed, deferred=True, batch_size=10)
def file_away(sender, entry, **kwargs):
    note("file_away", schema=connection.schema_name, text=entry.text)
