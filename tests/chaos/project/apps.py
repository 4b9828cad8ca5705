from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "tests.chaos.project"
    label = "chaos"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
