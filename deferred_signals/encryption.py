"""The option ``encrypt``: what a delivery carries travels as a Fernet token inside the signed envelope.

``encrypted`` stands there in place of ``sender``, ``kwargs`` and ``context``, and is the token of their JSON. What
workers, logs and brokers go by stays readable: version, id, time, receiver, signal, counts. On the worker the envelope
keeps its token, and retries carry it on as it is: nothing that was encrypted is ever written in clear again, and who
lacks the key can still hand it on.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

from . import conf
from .envelope import Envelope
from .envelope_fields import CONTENTS, checked
from .exceptions import ConfigurationError, OpenError, UnknownKey
from .options import Options
from .strict_json import dump, parse


def is_wanted(options: Options) -> bool:
    """Whether the deliveries of a connection travel encrypted."""
    return conf.current().encrypt if options.encrypt is None else options.encrypt


def check() -> None:
    """Raise ConfigurationError where this process cannot encrypt; called in ``send()``."""
    _keyring()


def encrypted(text: str) -> str:
    """An envelope's text with its contents encrypted by the first key. Raises ConfigurationError."""
    data = parse(text)
    contents = dump({key: data.pop(key) for key in CONTENTS})
    return dump({**data, "encrypted": _keyring().encrypt(contents.encode()).decode()})


def opened(envelope: Envelope) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """An envelope's sender, kwargs and context, still encoded, encrypted or not.

    Raises UnknownKey where no key of this process opens them, and OpenError for what no sender of ours encrypts.
    """
    if envelope.encrypted is None:
        return envelope.sender, envelope.kwargs, envelope.context
    try:
        keyring = _keyring()
    except ConfigurationError as error:
        raise UnknownKey(f"The delivery is encrypted. {error}") from None
    try:
        # ASCII: anything else, which only who signs nonsense can send, is no token.
        text = keyring.decrypt(envelope.encrypted.encode("ascii", "replace"))
    except _fernet().InvalidToken:
        raise UnknownKey("The delivery is encrypted with a key that this process's ENCRYPTION_KEYS lack.") from None
    try:
        data = parse(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise OpenError("What the payload has encrypted is not the JSON that this library writes.")
    found = checked(data, CONTENTS)
    return found["sender"], found["kwargs"], found["context"]


def _fernet() -> Any:
    # Here, for only who encrypts needs it, and it is the largest import that this library could cause.
    try:
        return import_module("cryptography.fernet")
    except ImportError:
        raise ConfigurationError(
            "Encryption needs the package cryptography, which is not installed: pip install deferred-signals[encrypt]."
        ) from None


def _keyring() -> Any:
    keys = conf.current().encryption_keys
    if keys is None:
        raise ConfigurationError("Encryption needs keys, and DEFERRED_SIGNALS['ENCRYPTION_KEYS'] has none.")
    return _keyring_of(keys)


@functools.lru_cache(maxsize=1)
def _keyring_of(keys: tuple[str | bytes, ...]) -> Any:
    fernet = _fernet()
    return fernet.MultiFernet([fernet.Fernet(key) for key in keys])
