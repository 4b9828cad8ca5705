from django.db import connection
from django_tenants.utils import schema_context

from deferred_signals import register_carrier


def current_schema():
    return connection.schema_name


def let_the_tenant_travel():
    register_carrier("tenant", capture=current_schema, restore=schema_context)
