from django.apps import AppConfig


class FamiliesConfig(AppConfig):
    name = "tests.integration.families"

    def ready(self) -> None:
        # What a payload names is looked up among the modules that are imported.
        from . import jobs, receivers, urls  # noqa: F401

        receivers.connect_all()
