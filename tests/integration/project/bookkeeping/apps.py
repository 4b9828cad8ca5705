from django.apps import AppConfig


class BookkeepingConfig(AppConfig):
    name = "tests.integration.project.bookkeeping"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
