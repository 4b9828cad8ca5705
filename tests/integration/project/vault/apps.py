from django.apps import AppConfig


class VaultConfig(AppConfig):
    name = "tests.integration.project.vault"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
