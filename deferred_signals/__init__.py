"""Django signals whose slow receivers run on Celery workers.

``@receiver(post_save, sender=User, deferred=True)`` is the whole change. Importing this package needs no settings and
imports neither Celery nor models; not even Django, until a name of it is asked for: pytest loads our plugin everywhere.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codec import NotCarried, register_codec
    from .context import register_carrier
    from .delivery import Delivery, current_delivery
    from .dispatch import Signal, connect, disconnect, receiver
    from .exceptions import Discard, Retry
    from .handover import publish_again
    from .suppression import suppress

__version__ = "0.1.0.dev0"

__all__ = [
    "Delivery",
    "Discard",
    "NotCarried",
    "Retry",
    "Signal",
    "connect",
    "current_delivery",
    "disconnect",
    "publish_again",
    "receiver",
    "register_carrier",
    "register_codec",
    "suppress",
]

#: In which module each of them is.
_HOMES = {
    "codec": ("NotCarried", "register_codec"),
    "context": ("register_carrier",),
    "delivery": ("Delivery", "current_delivery"),
    "dispatch": ("Signal", "connect", "disconnect", "receiver"),
    "exceptions": ("Discard", "Retry"),
    "handover": ("publish_again",),
    "suppression": ("suppress",),
}


if TYPE_CHECKING:
    pass
else:  # to whom checks types, the names above are all that there are

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
                return value
        if name.isidentifier() and not name.startswith("_"):
            try:
                return import_module(f".{name}", __name__)  # deferred_signals.signals
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":
                    raise  # it is there; the library of an extra is not
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
