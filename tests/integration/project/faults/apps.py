from django.apps import AppConfig


class FaultsConfig(AppConfig):
    name = "tests.integration.project.faults"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
