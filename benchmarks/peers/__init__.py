"""Libraries on PyPI that want the same as we, each used as it documents; README.md says what each leaves out.

Each module has a class ``Sender``. Its ``prepare()`` is called while the broker's app is current; ``send(row)`` has the
work done for a row; ``expect(count)`` removes what was sent and checks how much it was; ``publish(rows)`` sends, and
sees to it that workers find it; ``by_celery`` tells whose workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from ..models import Row
from ..stage import Broker

#: By the name of the distribution, the package that it installs and our module.
PEERS = {
    "celery-signal-receivers": ("celery_signals", "signal_receivers"),
    "django-q-signals": ("django_q_signals", "q_signals"),
    "django-domain-events": ("django_domain_events", "domain_events"),
}
#: Those that publish to RabbitMQ too, when they send.
ON_RABBITMQ = ("celery-signal-receivers",)


class Sender(Protocol):
    """What each peer's module has."""

    name: str
    rows: type[Row]
    by_celery: bool

    def prepare(self) -> None: ...
    def send(self, row: Row) -> object: ...
    def expect(self, count: int) -> None: ...
    def publish(self, rows: Sequence[Row]) -> None: ...


def missing(*names: str) -> dict[str, str]:
    """Which of the peers are not here, with the reason."""
    return {
        name: f"it is not installed (pip install {name})"
        for name in names or PEERS
        if find_spec(PEERS[name][0]) is None
    }


def senders(broker: Broker, *names: str, **more: str) -> list[Sender]:
    """Those that are here, for one broker."""
    absent = missing(*names)
    there = [name for name in names or PEERS if name not in absent]
    return [import_module(f"{__name__}.{PEERS[name][1]}").Sender(broker, **more) for name in there]


def connect_on_worker() -> None:
    """Let Celery's worker know the tasks of those that are here."""
    for name in PEERS:
        if name not in missing(name):
            import_module(f"{__name__}.{PEERS[name][1]}").connect_on_worker()
