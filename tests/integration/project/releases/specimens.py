"""The receivers that the specimens of ``tests/wire`` name, as a later release has them: renamed."""

from django.db.models.signals import post_save

from deferred_signals import Signal, connect
from tests.wire.specimen import told

from .ran import ran

saved = Signal()
charged = Signal()


def welcome(sender, signal, rows, request, **kwargs):
    rowless = {name: told(value) for name, value in {**kwargs, "request": request}.items()}
    ran(
        "welcome",
        sender=sender._meta.label,
        signal=signal is post_save,
        rows=[row.pk for row in rows][:1],
        told=rowless,
    )


def charge(sender, signal, **kwargs):
    ran("charge", signal=signal is charged)


connect(saved, welcome, deferred=True, aliases=["shop.receivers.welcome"], max_retries=0)
connect(charged, charge, deferred=True, aliases=["shop.receivers.charge"], max_retries=5)
