"""The part of the context that Django itself keeps: the active language and time zone."""

from __future__ import annotations

import functools
import re
import threading
from contextvars import Context, ContextVar
from datetime import UTC, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from asgiref.local import Local
from django.core.signals import setting_changed
from django.utils import timezone as django_timezone
from django.utils import translation
from django.utils.autoreload import file_changed
from django.utils.translation import trans_real

from .exceptions import DecodeError, UnknownName
from .strict_json import dump

#: What zones are called. A name leads to a file, so it must not lead anywhere else.
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,100}(?:/[A-Za-z0-9_+-]{1,100}){0,5}")


def zone_to_text(zone: tzinfo | None) -> str | None:
    """``"Europe/Vienna"``, or a fixed offset in seconds and its name, ``"+3600.0 CET"``; None for what is neither."""
    if isinstance(zone, ZoneInfo):
        return zone.key
    if isinstance(zone, timezone):
        return f"{zone.utcoffset(None).total_seconds():+} {zone.tzname(None)}"
    return None


def zone_from_text(text: str) -> tzinfo:
    """The time zone that ``zone_to_text`` described.

    Raises ValueError for any other text, and UnknownName for a zone that this process's time zone data do not have.
    """
    if text[0] in "+-":
        offset, _, name = text.partition(" ")
        unnamed = timezone(timedelta(seconds=float(offset)))
        return unnamed if unnamed.tzname(None) == name else timezone(unnamed.utcoffset(None), name)
    if not _ZONE.fullmatch(text):
        raise ValueError("no name of a time zone")
    try:
        return ZoneInfo(text)
    except (ValueError, LookupError, OSError):
        # OSError: "Europe" is a directory.
        raise UnknownName("The payload has a time zone that this process's data do not have: is tzdata old?") from None


def _capture_zone() -> str | None:
    return zone_to_text(django_timezone.get_current_timezone())


# Neither of the next two is left again: what runs a delivery does it in a context of its own, and it is in context
# variables that Django keeps both.


def enter_zone(text: Any) -> None:
    """Activate a captured time zone; one that could not be named is the worker's own TIME_ZONE. Raises DecodeError."""
    if text is None:
        django_timezone.deactivate()
        return
    try:
        zone = _known_zone(text)
    except (ValueError, TypeError, LookupError, ArithmeticError):
        raise DecodeError("The time zone of the payload's context is none.") from None
    django_timezone.activate(zone)


_known_zone = functools.lru_cache(maxsize=1000)(zone_from_text)


def enter_language(code: Any) -> None:
    """Activate a captured language. Raises DecodeError for what is no language's code: Django makes a path of it."""
    if code is None:
        translation.deactivate_all()
        return
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise DecodeError("The language of the payload's context is none.")
    translation.activate(code)


_CODE = re.compile(r"[A-Za-z0-9@_-]{1,64}")


#: The parts of the context that are captured here.
NAMES = ("language", "timezone")


def _keeps_its_variable() -> bool:
    scratch, local = Context(), Local()

    def set_twice() -> None:
        local.value = 1
        del local.value
        local.value = 2

    scratch.run(set_twice)
    return len(scratch) == 1


class _Watch:
    """The context variables in which Django keeps language and time zone, and what they held in each thread."""

    def __init__(self) -> None:
        # Those that activating something sets, which is found out in an empty context.
        scratch = Context()
        # No language at all, for which nothing is loaded. Not by way of django.utils.translation, which keeps the first
        # function that it finds, even one of a test's USE_I18N=False.
        scratch.run(trans_real.deactivate_all)
        scratch.run(django_timezone.activate, UTC)
        #: Empty with an asgiref of before 3.9: it forgets a variable when its value is deleted, and makes another one.
        self.variables: tuple[ContextVar[Any], ...] = tuple(scratch) if _keeps_its_variable() else ()
        self.seen = threading.local()


_watch: _Watch | None = None


def _forget(**kwargs: Any) -> None:
    """Django may keep the language in another variable now.

    It does when tests change settings, and under runserver when a file of translations has changed.
    """
    global _watch  # noqa: PLW0603 - a cache of one
    _watch = None


setting_changed.connect(_forget)
file_changed.connect(_forget)


def capture() -> tuple[dict[str, Any], str]:
    """The active language and time zone, as JSON says them, and the text of that.

    Asking Django takes longer than encoding a post_save, so it is asked only when one of the two has changed: then the
    context variable holds another object, for asgiref's ``Local`` never changes a value in place.
    """
    global _watch  # noqa: PLW0603
    watch = _watch
    if watch is None:
        watch = _watch = _Watch()
    last = getattr(watch.seen, "last", None)
    if last is not None and watch.variables:
        for variable, value in last[0]:
            if variable.get(None) is not value:
                break
        else:
            return last[1]  # type: ignore[no-any-return]
    held = [(variable, variable.get(None)) for variable in watch.variables]
    captured = {"language": translation.get_language(), "timezone": _capture_zone()}
    made = captured, dump(captured)
    watch.seen.last = held, made
    return made
