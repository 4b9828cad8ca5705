"""The sender's process of the families; a scenario is called ``module.function``."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import django

django.setup()

from tests.integration.commands import serve  # noqa: E402
from tests.integration.families.celery import app  # noqa: E402


def find(name: str) -> Callable[..., Any]:
    module, _, function = name.rpartition(".")
    found: Callable[..., Any] = getattr(import_module(f"tests.integration.families.scenarios.{module}"), function)
    return found


app.set_default()
serve(find)
