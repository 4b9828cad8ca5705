"""What comes before all scenarios."""

from django.core.management import call_command
from django.db import connection


def create_tables():
    call_command("migrate", verbosity=0)
    connection.close()
