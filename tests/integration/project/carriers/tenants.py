from contextlib import contextmanager

from django.db import connection
from django_tenants.utils import schema_context, schema_exists

from deferred_signals import Discard, register_carrier


def current_schema():
    return connection.schema_name


@contextmanager
def in_schema(name):
    # Without its schema, PostgreSQL would look for the tenant's tables in "public".
    if not schema_exists(name):
        raise Discard(f"The tenant {name} is gone.")
    with schema_context(name):
        yield


def let_the_tenant_travel():
    register_carrier("tenant", capture=current_schema, restore=in_schema)
