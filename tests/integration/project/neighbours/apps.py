from django.apps import AppConfig


class NeighboursConfig(AppConfig):
    name = "tests.integration.project.neighbours"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
