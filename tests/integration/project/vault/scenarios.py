"""What the sender's process does on command."""

import json
import time

from django.apps import apps
from django.db import transaction

from deferred_signals.envelope import seal
from deferred_signals.exceptions import EncodeError

from . import receivers, signals


class Secretive:
    """Cannot travel, and says the secret to whoever asks for its repr."""

    def __init__(self, secret):
        self.secret = secret

    def __repr__(self):
        return f"<Secretive {self.secret}>"


def send(signal, secret):
    """The ids of the deliveries."""
    return [delivery.id for _, delivery in getattr(signals, signal).send(sender=None, secret=secret)]


def fail_to_encode(secret):
    """The errors that a send of what cannot travel raises, as text."""
    said = []
    for value in (
        Secretive(secret),
        {secret: [Secretive(secret)]},
        secret * 100_000,
        [secret] * 100_000,
        f"{secret}\ud800",
    ):
        try:
            signals.kept.send(sender=None, secret=value)
        except EncodeError as error:
            said.append(repr(error) + str(error))
    # What the receiver does not name becomes a marker, which is said in the log.
    signals.kept.send(sender=None, secret=secret, other=Secretive(secret))
    return said


def payload_for(secret):
    """A genuine payload that was not published."""
    with transaction.atomic():
        [(_, delivery)] = signals.kept.send(sender=None, secret=secret)
        transaction.set_rollback(True)
    return delivery.payload


def sealed_nonsense(secret):
    """Authentic payloads with arguments that a worker cannot make again, or not yet."""
    head = {"v": 1, "id": "0", "at": time.time(), "to": f"{receivers.__name__}.keep", "signal": None}
    rest = {"sender": None, "context": {}}
    arguments = [{"$uuid": secret}, {"$datetime": [secret, None, 0]}, {"$decimal": secret}, {"$of_tomorrow": secret}]
    arguments += [{"$ref": ["shop.customer", secret, "default"]}, {"$class": secret}, {"$ref": [secret, 1, "default"]}]
    return [seal(json.dumps({**head, **rest, "kwargs": {"secret": argument}})) for argument in arguments]


def results():
    """The rows of the result backend, every column as text."""
    rows = apps.get_model("django_celery_results.TaskResult").objects.values()
    return [{name: str(value) for name, value in row.items()} for row in rows]
