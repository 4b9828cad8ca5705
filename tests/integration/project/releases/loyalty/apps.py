from django.apps import AppConfig


class LoyaltyConfig(AppConfig):
    """Release 2 does not have this app."""

    name = "tests.integration.project.releases.loyalty"

    def ready(self) -> None:
        from . import receivers  # noqa: F401
