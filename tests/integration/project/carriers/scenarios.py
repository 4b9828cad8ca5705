"""What the sender's process does on command, in its tenants and traces."""

import sys
from contextlib import redirect_stdout

from django.core.management import call_command
from django.db import transaction
from django_tenants.utils import schema_context
from opentelemetry import trace

from .ledger.models import Entry, Receipt
from .ledger.receivers import filed, outside
from .models import Tenant


def create_tables(tenants):
    with redirect_stdout(sys.stderr):  # where this process's answers go, django-tenants tells of its progress
        call_command("migrate_schemas", shared=True, run_syncdb=True, verbosity=0)
        for name in tenants:
            Tenant.objects.create(schema_name=name, name=name)


def write(schema, text):
    with schema_context(schema), transaction.atomic():
        return Entry.objects.create(text=text).pk


def file(schemas, count):
    """So many entries of each, of which some share a message, for they are of one commit."""
    with transaction.atomic():
        for number in range(count):
            for schema in schemas:
                with schema_context(schema):
                    filed.send(sender=None, entry=Entry.objects.create(text=f"{number} of {schema}"))


def write_and_leave(schema, text):
    """Write, and delete the tenant before a worker can have seen that."""
    with transaction.atomic():
        write(schema, text)
        Tenant.objects.get(schema_name=schema).delete(force_drop=True)


def receipts(schema):
    with schema_context(schema):
        return list(Receipt.objects.values_list("text", flat=True))


def send_outside():
    """Send where there is no tenant and no trace."""
    outside.send(sender=None)


def send_traced():
    with trace.get_tracer(__name__).start_as_current_span("request") as span:
        outside.send(sender=None)
        return f"0x{span.get_span_context().trace_id:032x}"
