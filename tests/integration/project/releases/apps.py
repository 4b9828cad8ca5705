from contextlib import contextmanager

from django.apps import AppConfig

from deferred_signals import register_carrier, register_codec

from . import release


class ReleasesConfig(AppConfig):
    name = "tests.integration.project.releases"

    def ready(self) -> None:
        from ..shop import observers  # noqa: F401
        from . import receivers, tenants, values  # noqa: F401

        if release.NEXT_WIRE:
            from tests.wire import next_wire

            next_wire.install()
        if release.NEW:
            register_codec(values.Money, tag="money", encode=lambda money: money.cents, decode=values.Money)
        if release.TENANTS:
            register_carrier("tenant", capture=tenants.current, restore=contextmanager(tenants.entered))
        if release.SPECIMENS:
            from tests.wire import shapes  # noqa: F401 - found only because it is imported

            from . import specimens  # noqa: F401
