from django.apps import AppConfig


class LedgerConfig(AppConfig):
    name = "tests.integration.project.carriers.ledger"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
