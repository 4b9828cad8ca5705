"""The context that travels beside the kwargs: captured at send, restored around the receiver, by carriers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta, timezone, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.utils import timezone as django_timezone
from django.utils import translation


class Carrier(NamedTuple):
    """How one part of the context travels: ``capture`` returns what JSON can say, ``restore`` enters it again."""

    name: str
    capture: Callable[[], Any]
    restore: Callable[[Any], AbstractContextManager[Any]]


def zone_to_text(zone: tzinfo | None) -> str | None:
    """``"Europe/Vienna"``, or a fixed offset in seconds and its name, ``"+3600.0 CET"``; None for what is neither."""
    if isinstance(zone, ZoneInfo):
        return zone.key
    if isinstance(zone, timezone):
        return f"{zone.utcoffset(None).total_seconds():+} {zone.tzname(None)}"
    return None


def zone_from_text(text: str) -> tzinfo:
    """The time zone that ``zone_to_text`` described; ValueError or ZoneInfoNotFoundError for any other text."""
    if text[0] in "+-":
        offset, _, name = text.partition(" ")
        unnamed = timezone(timedelta(seconds=float(offset)))
        return unnamed if unnamed.tzname(None) == name else timezone(unnamed.utcoffset(None), name)
    return ZoneInfo(text)


def _capture_zone() -> str | None:
    return zone_to_text(django_timezone.get_current_timezone())


@contextmanager
def _restore_zone(text: str | None) -> Iterator[None]:
    # A time zone object of another library cannot be named; the worker's own TIME_ZONE is the best stand-in.
    with django_timezone.override(None if text is None else zone_from_text(text)):
        yield


#: In the order in which they are entered on the worker.
CARRIERS: list[Carrier] = [
    Carrier("language", translation.get_language, translation.override),
    Carrier("timezone", _capture_zone, _restore_zone),
]


def capture() -> dict[str, Any]:
    """The context of this moment, as every carrier tells it."""
    return {carrier.name: carrier.capture() for carrier in CARRIERS}


@contextmanager
def restored(captured: Mapping[str, Any]) -> Iterator[None]:
    """Enter the captured context; a part whose carrier this process does not have is left out."""
    with ExitStack() as stack:
        for carrier in CARRIERS:
            if carrier.name in captured:
                stack.enter_context(carrier.restore(captured[carrier.name]))
        yield
