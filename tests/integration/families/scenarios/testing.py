"""What Django sends while tests run."""

from pathlib import Path

from django.test import override_settings

from ..expectations import Unsendable
from ..recording import recording


def settings():
    with recording("setting_changed") as found:
        with override_settings(FAMILIES_COLOUR="red", FAMILIES_PATHS=[Path("a"), {"b": (1, 2)}], FAMILIES_NOTHING=None):
            pass
        with override_settings(FAMILIES_OBJECT=Unsendable()):
            pass
    return found.answer() | {"entered": [arguments["enter"] for _, arguments in found.live]}
