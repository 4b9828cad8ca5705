import os

from django.apps import AppConfig


class ClinicConfig(AppConfig):
    name = "tests.integration.project.clinic"

    def ready(self) -> None:
        from . import receivers

        receivers.connect_those_of(os.environ.get("CLINIC_RELEASE", "new"))
