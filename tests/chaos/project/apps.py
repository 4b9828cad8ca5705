import os

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "tests.chaos.project"
    label = "chaos"

    def ready(self) -> None:
        from . import points, receivers  # noqa: F401

        if os.environ.get("CHAOS_OUTBOX"):
            from . import breaking, kept  # noqa: F401
