"""What a worker tells of itself, by a command of Celery's remote control that ``manage.py deferred_doctor`` sends.

Names, numbers and the clock: it changes nothing and knows nothing of what receivers were called with. Who can write to
the broker can ask, as with all of Celery's remote control (``worker_enable_remote_control``).
"""

from __future__ import annotations

import time
from typing import Any

from celery.worker.control import inspect_command

from . import __version__, conf, encryption, registry
from .envelope import VERSION, Envelope
from .envelope_fields import CONTENTS
from .exceptions import ConfigurationError, OpenError, UnknownKey
from .signature import signed, verified
from .strict_json import dump, parse

#: The name of the command.
COMMAND = "deferred_signals"

#: What a question is signed with, so that what the doctor signs can never pass for a delivery: it is no JSON.
_GREETING = "the doctor asks "


def question(nonce: str) -> str:
    """A signed text that a worker can verify if it has the key of this process."""
    return signed(_GREETING + nonce)


def token() -> str | None:
    """Something encrypted with the key of this process; None where it has none, or cannot encrypt."""
    if conf.current().encryption_keys is None:
        return None
    try:
        text = encryption.encrypted(dump({key: {} for key in CONTENTS}))
    except ConfigurationError:
        return None
    return str(parse(text)["encrypted"])


def can_open(given: Any) -> bool:
    """Whether one of this process's keys opens it."""
    try:
        encryption.opened(Envelope("", 0, "", None, None, {}, {}, encrypted=str(given)))
    except (OpenError, UnknownKey):
        return False
    return True


def is_ours(asked: Any) -> bool:
    """Whether a question was signed with one of this process's keys."""
    try:
        return isinstance(asked, str) and verified(asked).startswith(_GREETING)
    except OpenError:
        return False


@inspect_command(name=COMMAND)
def tell(state: Any, asked: Any = None, encrypted: Any = None, **kwargs: Any) -> dict[str, Any]:
    """Names of the deferred receivers that this worker knows, its wire version, its clock."""
    receivers = {one.name: list(one.options.aliases) for one in registry.registrations()}
    told = {
        "version": __version__,
        "wire": VERSION,
        "receivers": receivers,
        "time": time.time(),
        # Why it can run no delivery at all: a mistake in its settings, as its own log says it.
        "wrong": None,
        # Whether the keys are the same, without telling anything about them.
        "same_key": None,
        "can_open": None,
    }
    try:
        if asked is not None:
            told["same_key"] = is_ours(asked)
        if encrypted is not None:
            told["can_open"] = can_open(encrypted)
        conf.current()
    except ConfigurationError as error:
        told["wrong"] = str(error)
    return told
