"""The keys by which durable deliveries are put in order, or are one: the options ``order_by`` and ``unique``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from .exceptions import EncodeError
from .options import Options
from .references import is_instance
from .registry import Registration
from .strict_json import dump

#: Characters of the longest key that is kept as it is; of a longer one, a hash is.
LONGEST = 200
#: Keys of which a database can have no idea of its own about whether two are equal. MySQL compares without case,
#: accents and spaces at the end.
_PLAIN = re.compile(r"[a-z0-9_.:,@+-]*")


#: Of a delivery: ``(order, unique)``.
Keys = tuple[str | None, str | None]
NO_KEYS: Keys = (None, None)


def keys_of(registration: Registration, options: Options, sender: Any, named: dict[str, Any]) -> Keys:
    """The keys of a delivery, ``(order, unique)``, each a text or None; keys of one receiver are its own.

    Raises EncodeError for what is no key, and what a callable of the project raises.
    """
    receiver = registration.name
    return (
        _key(receiver, "order_by", options.order_by, sender, named),
        _key(receiver, "unique", options.unique, sender, named),
    )


def _key(receiver: str, option: str, how: Any, sender: Any, named: dict[str, Any]) -> str | None:
    if how is None:
        return None
    try:
        value = _followed(how, named) if isinstance(how, str) else how(sender=sender, **named)
        part = _part(value)
    except EncodeError as error:
        error.receiver = receiver
        error.under(f"the key of {option}=")
        raise
    if part is None:
        return None
    return _scoped(receiver, part if isinstance(part, str) else dump(part))


def _followed(path: str, named: dict[str, Any]) -> Any:
    first, *steps = path.split(".")
    if first not in named:
        raise EncodeError(f"{path!r} begins with an argument that the send does not have.")
    value = named[first]
    for step in steps:
        if value is None:
            return None
        try:
            value = value[step] if isinstance(value, Mapping) else getattr(value, step)
        except (AttributeError, KeyError):
            raise EncodeError(f"{path!r} leads nowhere: there is no {step!r}.", type(value).__name__) from None
    return value


def _part(value: Any) -> Any:
    """A text for a value, a list of them for several, or None."""
    if is_instance(value):
        return _of_instance(value)
    # What stands for an instance, as if it were one.
    value = getattr(value, "pk", value)
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return None
    if isinstance(value, tuple | list):
        return [_part(one) for one in value]
    own: Any = type(value).__str__
    if isinstance(value, bool | bytes) or (own is object.__str__ and not isinstance(value, int | float)):
        raise EncodeError(
            "a key is a text, a number, a date, a UUID, an enum, a model instance (its pk), or a tuple of these.",
            type(value).__name__,
        )
    return str(value)


def _of_instance(instance: Any) -> str | None:
    """Its model and its pk, as no other row has; its __str__ is for people, and changes.

    Of a row that is in the tables of several models, parents and children, the first parent's: all have one pk.
    """
    meta = instance._meta.concrete_model._meta
    while (link := meta.pk.remote_field) is not None and link.parent_link:
        meta = link.model._meta.concrete_model._meta
    key = _part(instance.pk)
    return None if key is None else f"{meta.label_lower}:{key if isinstance(key, str) else dump(key)}"


def _scoped(receiver: str, key: str) -> str:
    scoped = f"{receiver}:{key}"
    if len(scoped) <= LONGEST and _PLAIN.fullmatch(scoped):
        return scoped
    digest = hashlib.sha256(scoped.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{scoped}~{digest[:12]}" if len(scoped) <= LONGEST and scoped.isprintable() else f"sha256:{digest}"
