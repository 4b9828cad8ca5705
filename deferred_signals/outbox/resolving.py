"""Whether a delivery still resolves in this release: what would keep it from being run here, found without running it.

All that a worker does before it calls the receiver is done, but for what belongs to others or to the database: no row
is read, no instance is made, no codec of the project's and no carrier is called. Their names are looked up, and what
they carry is looked into.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from deferred_signals import context, encryption, registry
from deferred_signals.codec import Decoder
from deferred_signals.codec.custom import is_registered
from deferred_signals.codec.field_values import FieldDefault, field_value
from deferred_signals.decoding import sender_of
from deferred_signals.envelope import Envelope, unseal
from deferred_signals.exceptions import DeferredSignalsError, NewerWire, UnknownName
from deferred_signals.parameters import signature_of
from deferred_signals.references import Reference, key_of, known_alias, model_of


class Problem(NamedTuple):
    """What keeps a delivery from being run here: what kind of thing it is, and the words for it."""

    kind: str
    reason: str


class _Row:
    """Stands for a model instance, or a value of a project's own codec, which nobody made."""


class Inspector(Decoder):
    """A decoder that only looks: what would need the database, or code of others, is stood for."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_looked_at)

    def _decode_tag(self, tag: str, data: Any) -> Any:
        if is_registered(tag):
            self.decode(data)
            return _Row()
        if tag == "$snapshot":
            return self._snapshot(data)
        return super()._decode_tag(tag, data)

    def _snapshot(self, data: Any) -> Any:
        label, alias, _, fields = data
        model = model_of(label)
        if alias is not None:
            known_alias(alias)
        by_name = {field.attname: field for field in model._meta.concrete_fields}
        if not set(fields) <= set(by_name):
            raise UnknownName(f"A snapshot of {model._meta.label} has fields that the model here does not have.")
        for name, made in fields.items():
            value = self.decode(made)
            if type(value) is not FieldDefault:  # the field would call what the project has given it
                field_value(by_name[name], value)
        return _Row()


def _looked_at(reference: Reference) -> Any:
    """In the place of its row."""
    key_of(model_of(reference.label), reference.pk)
    known_alias(reference.alias)
    return _Row()


def problem_of(payload: str) -> Problem | None:
    """What keeps a delivery from being run by this process; None if nothing is known to."""
    try:
        return _of_envelope(unseal(payload, of_any_age=True))
    except NewerWire as error:
        return Problem("wire", str(error))
    except DeferredSignalsError as error:
        return Problem("payload", str(error))


def _of_envelope(envelope: Envelope) -> Problem | None:
    try:
        registration = registry.get(envelope.receiver)
        registry.signal_for(envelope.signal, registration)
    except DeferredSignalsError as error:
        return Problem("receiver", str(error))
    sender, kwargs, carried = encryption.opened(envelope)
    try:
        _look_into(sender, kwargs, carried)
    except DeferredSignalsError as error:
        return Problem("value", str(error))
    except Exception as error:  # noqa: BLE001 - a payload of ours, or a field of the project's, may be wrong in any way
        return Problem("value", f"A value cannot be made again ({type(error).__name__}).")
    return _arguments(registration.function, kwargs)


def _look_into(sender: Any, kwargs: Mapping[str, Any], carried: Mapping[str, Any]) -> None:
    inspector = Inspector()
    context.check_names(carried)
    for name, value in carried.items():
        if not context.is_djangos(name):
            inspector.decode(value)
    for value in kwargs.values():
        inspector.decode(value)
    sender_of(sender, inspector.decode)


def _arguments(function: Any, kwargs: Mapping[str, Any]) -> Problem | None:
    """Whether the receiver of this release takes the arguments that were sent."""
    try:
        signature_of(function).bind(**dict.fromkeys(["sender", "signal", *kwargs]))
    except TypeError as error:
        return Problem("arguments", f"The receiver does not take what was sent: {error}.")
    return None
