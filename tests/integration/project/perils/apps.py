from django.apps import AppConfig


class PerilsConfig(AppConfig):
    name = "tests.integration.project.perils"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
