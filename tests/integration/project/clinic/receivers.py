import os

from deferred_signals import Signal, connect

admitted = Signal()


def write_letter(sender, **kwargs): ...


def send_bill(sender, **kwargs): ...


def connect_those_of(release):
    """The older release has no bills. A test may name a queue for those of the newer, and delay its letters."""
    connect(admitted, write_letter, deferred=True, countdown=int(os.environ.get("CLINIC_LETTERS_AFTER", "0")))
    if release == "new":
        connect(admitted, send_bill, deferred=True, queue=os.environ.get("CLINIC_BILLS"))
