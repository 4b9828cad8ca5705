"""The sender's process: makes the tables, then uses the magazine as its readers and authors do."""

import django

django.setup()

from django.core.management import call_command  # noqa: E402

from tests.third_party.project import visits  # noqa: E402

call_command("migrate", run_syncdb=True, verbosity=0)
visits.all_of_them()
