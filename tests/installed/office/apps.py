from django.apps import AppConfig


class OfficeConfig(AppConfig):
    name = "office"

    def ready(self):
        from . import receivers  # noqa: F401
