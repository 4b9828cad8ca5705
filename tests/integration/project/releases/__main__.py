"""The sender's process of a release."""

import functools

import django

django.setup()

from tests.integration.commands import serve  # noqa: E402
from tests.integration.project.releases import scenarios  # noqa: E402

serve(functools.partial(getattr, scenarios))
