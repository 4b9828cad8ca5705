"""The arguments of one send, encoded: what the receiver names must travel, for the rest a marker may stand."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from django.db import router

from . import context
from .codec import Encoder
from .codec.base import TwoStates
from .codec.shapes import Shapes
from .codec.stand_ins import not_carried
from .django_signals import Reduce
from .exceptions import EncodeError
from .options import Options
from .references import is_instance, write_alias
from .registry import Registration

logger = logging.getLogger("deferred_signals")


class Encoded(NamedTuple):
    """What of an envelope comes from its send, as JSON."""

    kwargs: dict[str, Any]
    sender: Any
    context: dict[str, Any]


class Arguments:
    """How the arguments of the sends over one connection are encoded."""

    def __init__(
        self,
        registration: Registration,
        options: Options,
        *,
        snapshot: bool,
        of_save: bool = False,
        reductions: dict[str, Reduce],
    ) -> None:
        self._name = registration.name
        self._named = registration.takes.named
        self._reductions = reductions
        self._snapshot = snapshot
        self._of_save = of_save
        self._fields, self._exclude = options.fields, options.exclude
        self._said: set[str] = set()
        self._shapes = Shapes()
        #: Whether instances travel as snapshots, or some arguments in another form than their type's.
        self._is_special = snapshot or bool(reductions)

    def text(self, named: dict[str, Any]) -> str | None:
        """The JSON text of the arguments; None where they are not so plain that it can be written at once."""
        return None if self._is_special or self._saved_to(named) is not None else self._shapes.text(named)

    def _saved_to(self, named: dict[str, Any]) -> str | None:
        """The database that a save was told to write to, where the routers would have chosen another one."""
        if not (self._of_save and router.routers):
            return None
        instance: Any = named.get("instance")
        using = named.get("using")
        is_told = isinstance(using, str) and is_instance(instance) and instance._state.db == using
        return using if is_told and write_alias(instance) != using else None

    def encode(self, sender: Any, named: dict[str, Any]) -> Encoded:
        """The JSON of one send's arguments and context. Raises EncodeError, and what a user's carrier raises."""
        apart: frozenset[Any] = frozenset()
        using = self._saved_to(named)
        while True:
            encoder = Encoder(
                snapshot=self._snapshot, apart=apart, fields=self._fields, exclude=self._exclude, using=using
            )
            try:
                kwargs = self._kwargs(encoder, named)
                return Encoded(kwargs, self._sender(encoder, sender), context.capture(self._context))
            except TwoStates as two:
                apart |= {two.row}

    def _kwargs(self, encoder: Encoder, named: dict[str, Any]) -> dict[str, Any]:
        kwargs: dict[str, Any] = {}
        encode, snapshots, reductions, asked = encoder.encode, encoder.snapshots, self._reductions, self._named
        for name, value in named.items():
            if not name.isascii():
                encode(name)
            kept = len(snapshots)
            encoder.asked = name in asked
            try:
                kwargs[name] = reductions[name](encoder, value) if name in reductions else encode(value)
            except EncodeError as error:
                encoder.restart(kept)
                kwargs[name] = self._refused(name, error.under(f"kwargs[{name!r}]"))
        return kwargs

    def _sender(self, encoder: Encoder, sender: Any) -> Any:
        kept = len(encoder.snapshots)
        try:
            return encoder.encode(sender)
        except EncodeError as error:
            encoder.restart(kept)
            try:
                # A view, a service: what its receivers want to know is whose it is.
                if not isinstance(sender, type):
                    return encoder.encode(type(sender))
            except EncodeError:
                pass
            # Every receiver names it, few look at it.
            return self._marker("sender", error.under("sender"))

    def _context(self, name: str, value: Any) -> Any:
        # Of its own: what the encoder of the arguments has counted is theirs.
        try:
            return Encoder().encode(value)
        except EncodeError as error:
            error.receiver = self._name
            raise error.under(f"context[{name!r}]") from None

    def _refused(self, name: str, error: EncodeError) -> Any:
        """Raise for what the receiver names; a marker for what only lands in its ``**kwargs``, said once."""
        error.receiver = self._name
        if name in self._named:
            raise error
        return self._marker(name, error)

    def _marker(self, name: str, error: EncodeError) -> Any:
        error.receiver = self._name
        if name not in self._said:
            self._said.add(name)
            logger.warning("%s The receiver gets a NotCarried marker instead.", error)
        return not_carried(error)
