"""What it costs to write down a post_save, beside kombu's JSON of the same facts."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from kombu.utils.json import dumps

from deferred_signals import localisation
from deferred_signals.codec import Encoder
from deferred_signals.envelope import Envelope, seal
from deferred_signals.strict_json import dump

from .dispatch import USUAL
from .measure import Comparison, Way
from .models import DeferredRow

PK = 42


def _repeat(work: Callable[[], object]) -> Callable[[int], None]:
    def repeat(times: int) -> None:
        for _ in range(times):
            work()

    return repeat


def comparisons() -> list[Comparison]:
    """The encoding alone, with the JSON text, and with all that makes a payload of it."""
    row = DeferredRow.from_db("default", ["id", "text"], [PK, "text"])
    named = {"instance": row, **USUAL}
    facts = {"sender": "benchmarks.deferredrow", "instance": ["benchmarks.deferredrow", PK, "default"], **USUAL}

    def encode(*, snapshot: bool = False) -> tuple[dict[str, Any], Any]:
        encoder = Encoder(snapshot=snapshot)
        return {name: encoder.encode(value) for name, value in named.items()}, encoder.encode(DeferredRow)

    def text() -> str:
        return dump(encode())

    def payload() -> str:
        kwargs, sender = encode()
        envelope = Envelope(
            id=str(uuid.uuid4()),
            created=time.time(),
            receiver="benchmarks.delivery.deferred",
            signal="django.db.models.signals.post_save",
            sender=sender,
            kwargs=kwargs,
            context=localisation.capture(),
        )
        return seal(envelope.to_text())

    return [
        Comparison(
            "encode_post_save",
            "write down one post_save",
            [
                Way("kombu's JSON of the same facts", _repeat(lambda: dumps(facts))),
                Way("Encoder", _repeat(encode), bar=1.0),
                Way("Encoder, and the context", _repeat(lambda: (encode(), localisation.capture()))),
                Way("Encoder, the instance as a snapshot", _repeat(lambda: encode(snapshot=True))),
                Way("Encoder and JSON text", _repeat(text)),
                Way("the whole signed payload", _repeat(payload)),
            ],
        )
    ]
