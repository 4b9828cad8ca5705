from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self) -> None:
        # Connects the receivers, in the web process and on the workers alike.
        from . import journal, receivers  # noqa: F401
