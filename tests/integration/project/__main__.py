"""The sender's process of the shop."""

import functools

import django

django.setup()

from tests.integration.commands import serve  # noqa: E402
from tests.integration.project.shop import scenarios  # noqa: E402

serve(functools.partial(getattr, scenarios))
