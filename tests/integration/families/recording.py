"""What the sender's process keeps of the sends in a block, and how it compares it with what has arrived."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

from django.db.models import Model

from deferred_signals import Delivery

from . import arrivals, table
from .comparison import differences
from .expectations import ARRIVES, CONDITIONS, TRAVELS, Local

WITH_ORIGIN = {"pre_delete", "post_delete"}
DEADLINE = 20.0


def receivers_of(signal: str) -> list[str]:
    """The names of the deferred receivers: those of what travels only for a receiver that names it do so."""
    with_request = any(row.signal == signal and row.argument == "request" for row in table.rows())
    plain = "arrive_naming_request" if with_request else "arrive"
    return [plain, "arrive_naming_origin"] if signal in WITH_ORIGIN else [plain]


class Sent:
    """One send to one deferred receiver: what should arrive, by argument, as it was at the send."""

    def __init__(self, signal: str, arguments: dict[str, Any], *, names_origin: bool) -> None:
        self.rows: dict[str, table.Row] = {}
        self.expected: dict[str, Any] = {}
        for name, value in arguments.items():
            named = name == "sender" or (name == "origin" and names_origin)
            fitting = [
                row
                for row in table.rows()
                if (row.signal, row.argument) == (signal, name) and CONDITIONS[row.condition](value, named)
            ]
            assert len(fitting) == 1, f"{len(fitting)} rows of docs/signals.md are about {signal}, {name}={value!r}"
            [self.rows[name]] = fitting
            self.expected[name] = ARRIVES[fitting[0].arrives](name, value)
        instances = [(name, value) for name, value in arguments.items() if isinstance(value, Model)]
        self.same = [(one[0], other[0]) for one, other in combinations(instances, 2) if one[1] is other[1]]


class Recorder:
    def __init__(self, signals: tuple[str, ...]) -> None:
        self.signals = signals
        self.sent: dict[tuple[str, str], list[Sent]] = defaultdict(list)
        self.published: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
        self.live: list[tuple[str, dict[str, Any]]] = []
        self.compared: set[str] = set()
        self.differences: list[str] = []

    def wait(self) -> None:
        """Until all has arrived: before a row is changed that a reference is about to read."""
        deadline = time.monotonic() + DEADLINE
        for deliveries in self.published.values():
            while not all(map(arrivals.has_ended, deliveries)) and time.monotonic() < deadline:
                time.sleep(0.01)

    def compare(self) -> None:
        self.wait()
        for (signal, receiver), sends in self.sent.items():
            deliveries = self.published[signal, receiver]
            if len(sends) != len(deliveries):
                self.differences.append(f"{signal}: {len(sends)} sends made {len(deliveries)} deliveries to {receiver}")
            # Each send makes one delivery, and both are noted in order.
            for sent, delivery in zip(sends, deliveries, strict=False):
                arrived = arrivals.read(delivery)
                if isinstance(arrived, dict):
                    self.differences += self._compare(signal, sent, delivery, arrived)
                else:
                    self.differences.append(arrived)

    def _compare(self, signal: str, sent: Sent, delivery: Delivery, arrived: dict[str, Any]) -> Iterator[str]:
        yield from differences(Local("Signal", signal), arrived.pop("signal"), f"{signal}.signal")
        if arrived.keys() != sent.rows.keys():
            yield f"{signal}: {sorted(sent.rows)} have arrived as {sorted(arrived)}"
        envelope = json.loads(delivery.text)
        wire = {"sender": envelope["sender"], **envelope["kwargs"]}
        for name in sent.rows.keys() & arrived.keys():
            row = sent.rows[name]
            self.compared.add(str(row))
            if not TRAVELS[row.travels](wire[name]):
                yield f"{row}: not by {row.travels}: {json.dumps(wire[name])[:200]}"
            yield from differences(sent.expected[name], arrived[name], str(row))
        yield from (
            f"{signal}: {one} and {other} were one object and have arrived as two"
            for one, other in sent.same
            if arrived.get(one) is not arrived.get(other)
        )

    def answer(self) -> dict[str, Any]:
        """For the test, in JSON."""
        return {"compared": sorted(self.compared), "differences": self.differences}

    def kinds(self, argument: str) -> list[str]:
        """The types of an argument as an inline receiver got it, in the order of the sends."""
        return [type(arguments[argument]).__name__ for _, arguments in self.live]


_recorder: Recorder | None = None


@contextmanager
def recording(*signals: str) -> Iterator[Recorder]:
    """Keep the sends of these signals, let them travel, and compare when the block is through."""
    global _recorder  # noqa: PLW0603 - receivers are functions of modules
    found = _recorder = Recorder(signals)
    try:
        yield found
    finally:
        _recorder = None
    found.compare()


def is_recorded(name: str, /, **kwargs: Any) -> bool:
    return _recorder is not None and name in _recorder.signals


def sent(signal: str, arguments: dict[str, Any]) -> None:
    if _recorder is not None and signal in _recorder.signals:
        _recorder.live.append((signal, arguments))
        for receiver in receivers_of(signal):
            made = Sent(signal, arguments, names_origin=receiver == "arrive_naming_origin")
            _recorder.sent[signal, receiver].append(made)


def published(delivery: Delivery) -> None:
    if _recorder is not None:
        signal = (delivery.signal or "").rpartition(".")[2]
        _recorder.published[signal, delivery.receiver.rpartition(".")[2]].append(delivery)


def failed(reason: str) -> None:
    if _recorder is not None:
        _recorder.differences.append(reason)
