"""What the modules of checks share: how a warning is made, and that nothing is said twice."""

from __future__ import annotations

from django.core import checks


def warning(id: str, message: str, hint: str, obj: str | None = None) -> checks.CheckMessage:  # noqa: A002 - as Django's
    """A warning with what to do about it."""
    return checks.Warning(message, hint=hint, obj=obj, id=id)


def once(messages: list[checks.CheckMessage]) -> list[checks.CheckMessage]:
    """Each message once: several connections of one receiver may all be wrong in the same way."""
    return [message for place, message in enumerate(messages) if message not in messages[:place]]
