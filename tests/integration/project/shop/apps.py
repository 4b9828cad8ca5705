from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "tests.integration.project.shop"

    def ready(self) -> None:
        from . import observers, receivers  # noqa: F401
