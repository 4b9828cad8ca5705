"""The signature of payloads: Django's Signer, with keys of our own setting or the project's SECRET_KEY."""

from __future__ import annotations

import functools

from django.conf import settings as django_settings
from django.core.signing import BadSignature, Signer

from . import conf
from .exceptions import OpenError

SALT = "deferred_signals.delivery"


def _signer() -> Signer:
    keys = conf.current().signing_keys
    if keys is None:
        keys = (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)
    return _signer_of(keys)


@functools.lru_cache(maxsize=1)
def _signer_of(keys: tuple[str | bytes, ...]) -> Signer:
    return Signer(key=keys[0], fallback_keys=list(keys[1:]), salt=SALT)


def signed(text: str) -> str:
    """The text and its signature, by the first key."""
    return _signer().sign(text)


def verified(payload: str) -> str:
    """The text of a payload whose signature is right by one of the keys. Raises OpenError."""
    try:
        return _signer().unsign(payload)
    except (BadSignature, UnicodeEncodeError):
        # UnicodeEncodeError: lone surrogates, which cannot be part of anything that we signed.
        raise OpenError(
            "The payload's signature is wrong: it was forged, damaged, or signed with a key that is not "
            "in this process's SIGNING_KEYS (or SECRET_KEY and SECRET_KEY_FALLBACKS)."
        ) from None
