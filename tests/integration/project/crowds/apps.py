from django.apps import AppConfig


class CrowdsConfig(AppConfig):
    name = "tests.integration.project.crowds"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
