"""What is kept of errors and of dead deliveries."""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid
from typing import Any

from django.db import IntegrityError, connections, transaction

from deferred_signals.bell import is_bell
from deferred_signals.delivery import Delivery
from deferred_signals.outcome import Outcome
from deferred_signals.references import type_name
from deferred_signals.registry import LONGEST_NAME

from .clock import DatabaseNow
from .models import Origin, OutboxDelivery, State
from .redaction import without_secrets
from .rows import id_of, insert, row_of

logger = logging.getLogger("deferred_signals")

#: Characters of an error and of a traceback that are kept.
LONGEST = 10_000
#: Stands where a longer text was cut: what was raised first stands at its beginning, what was raised last at its end.
_CUT = "\n[...]\n"


def kept(text: str) -> str:
    """A text as it is kept: without secrets, not too long, and such that every database takes it."""
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    *cut, last = _halves(text, 2 * LONGEST)
    parts = [*(without_secrets(part, is_cut=True) for part in cut), without_secrets(last)]
    return _CUT.join(_halves(_CUT.join(parts), LONGEST))


def _halves(text: str, longest: int) -> list[str]:
    """A text, or the beginning and the end of one that is longer, with room for ``_CUT`` between them."""
    half = (longest - len(_CUT)) // 2
    return [text] if len(text) <= longest else [text[:half], text[-half:]]


def report(end: Outcome) -> dict[str, Any]:
    """The columns that say why a run did not succeed."""
    error = end.error
    if error is None:
        return {"error_type": "", "error": kept(end.reason), "traceback": ""}
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - a receiver's own exception may fail in its text
        said = ""
    text = end.reason if not said or said in end.reason else f"{end.reason}: {said}"
    # Frames and lines of code, never the values of variables.
    trace = "".join(traceback.format_exception(error)) if error.__traceback__ is not None else ""
    return {"error_type": type_name(error)[:LONGEST_NAME], "error": kept(text), "traceback": kept(trace)}


#: Characters that JSON escapes and UTF-8 cannot say, which some databases refuse.
_NEVER_OURS = re.compile(r"[\x00-\x1f\ud800-\udfff]")

#: Payloads that cannot be opened and are kept. No more, for anybody who can write to the broker can make them.
MOST_UNOPENED = 1000


def bury(alias: str, payload: str, delivery: Delivery | None, end: Outcome) -> None:
    """Keep a dead delivery, in its row if it has one. One whose payload cannot be opened has no receiver.

    Raises the database's error.
    """
    rows = OutboxDelivery.objects.using(alias)
    if delivery is None:
        if not _is_worth_keeping(payload):
            return
        delivery = _unopened(payload)
    mine = rows.filter(delivery_id=id_of(delivery.id))
    if not (delivery.receiver or mine.exists() or _has_room(alias)):
        logger.warning("%d payloads that cannot be opened are kept already, and this one is not.", MOST_UNOPENED)
        return
    found = {
        "state": State.DEAD,
        "payload": payload,
        "attempt": delivery.attempt,
        "crashes": delivery.crashes,
        "due": None,
        "ring_at": None,
        "finished": DatabaseNow(),
        **report(end),
    }
    if not mine.exists():
        connection = connections[alias]
        try:
            with transaction.atomic(using=alias):
                insert(connection, [row_of(connection, delivery, Origin.BURIED)])
                mine.update(**found)
        except IntegrityError:
            logger.debug("Delivery %s has been kept by another process meanwhile", delivery.id)
        else:
            return
    # It was spilled, or has died twice. What runs just now, or has run well, ends for itself.
    mine.filter(state__in=(State.PENDING, State.DEAD)).update(**found)


def _is_worth_keeping(payload: str) -> bool:
    """Whether a payload that could not be opened may be opened one day: it may be a delivery that a sender signed."""
    return not is_bell(payload) and not _NEVER_OURS.search(payload)


def _has_room(alias: str) -> bool:
    unopened = OutboxDelivery.objects.using(alias).filter(state=State.DEAD, receiver="")
    return unopened[:MOST_UNOPENED].count() < MOST_UNOPENED


def _unopened(payload: str) -> Delivery:
    """What stands for the delivery of a payload, the same for the same one."""
    key = uuid.uuid5(uuid.NAMESPACE_OID, payload)
    return Delivery(id=str(key), receiver="", signal=None, at=time.time())
