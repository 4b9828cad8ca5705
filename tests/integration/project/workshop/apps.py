from django.apps import AppConfig


class WorkshopConfig(AppConfig):
    name = "tests.integration.project.workshop"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
