from django.apps import AppConfig


class MagazineConfig(AppConfig):
    name = "tests.third_party.project"
    label = "magazine"

    def ready(self) -> None:
        # urls: what a payload names, such as the view that is a sender, is looked up among the imported modules.
        from . import codecs, receivers, recording, urls  # noqa: F401

        recording.connect_all()
