"""What stands on the worker for a value that cannot be itself there, and what lazy objects travel as."""

from __future__ import annotations

from typing import Any

from django.utils.functional import LazyObject, Promise

from ..exceptions import EncodeError, NotCarriedError
from .base import Decoder, Encoder, add, type_name
from .walk import told


def _lazy_text(encoder: Encoder, value: Promise) -> Any:
    # What pickle is told: (function, args, kwargs, *types of the result). Only strings can be forced unchanged.
    kinds: tuple[type, ...] = value.__reduce__()[1][3:]
    if not any(issubclass(kind, str) for kind in kinds):
        raise EncodeError("it is a lazy value that is not a string. Evaluate it before the send.", type_name(value))
    return encoder.encode(told(value, str, _EVALUATED))


def _lazy_object(encoder: Encoder, value: LazyObject[Any]) -> Any:
    # The pickle protocol is the public way to what a LazyObject wraps.
    return encoder.encode(told(value, lambda lazy: lazy.__reduce__()[1][0], _EVALUATED))


_EVALUATED = "it is lazy, and its evaluation raised {}. Evaluate it before the send."


def _exception(encoder: Encoder, value: BaseException) -> Any:
    if isinstance(value, CarriedError):
        name, text = value.type_name, value.text
    else:
        name, text = type_name(value), told(value, str, "its text cannot be had: that raised {}. Send what it says.")
    return {"$exception": [name, encoder.encode(text)]}


class CarriedError(Exception):
    """Stands on the worker for an exception that was an argument: ``type_name`` and the text are what travelled."""

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)
        self.type_name = type_name
        self.text = text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CarriedError) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)


def _decode_exception(decoder: Decoder, data: Any) -> CarriedError:
    name, text = data
    return CarriedError(str(name), str(text))


class NotCarried:
    """Stands on the worker for an argument that could not travel and that the receiver does not name.

    Passing it on is harmless, copying and pickling included; looking into it raises NotCarriedError, which says what it
    was and what to do.
    """

    __slots__ = ("_what",)

    def __init__(self, where: str, type_name: str, reason: str) -> None:
        object.__setattr__(self, "_what", (where, type_name, reason))

    def _raise(self, *args: Any, **kwargs: Any) -> Any:
        where, kind, reason = object.__getattribute__(self, "_what")
        raise NotCarriedError(f"{where} ({kind}) did not travel to the worker: {reason}")

    def __getattr__(self, name: str) -> Any:
        # Copying and pickling ask for their own methods and must hear a plain no.
        if name.startswith("__"):
            raise AttributeError(name)
        self._raise()

    __setattr__ = __delattr__ = __call__ = __bool__ = __str__ = __format__ = __bytes__ = __fspath__ = _raise
    __iter__ = __next__ = __aiter__ = __anext__ = __await__ = __enter__ = __exit__ = __aenter__ = __aexit__ = _raise
    __len__ = __length_hint__ = __reversed__ = __getitem__ = __setitem__ = __delitem__ = __contains__ = _raise
    __int__ = __float__ = __complex__ = __index__ = __round__ = __trunc__ = __floor__ = __ceil__ = _raise
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __instancecheck__ = __subclasscheck__ = _raise
    __neg__ = __pos__ = __abs__ = __invert__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _raise
    __matmul__ = __rmatmul__ = __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _raise
    __divmod__ = __rdivmod__ = __pow__ = __rpow__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _raise
    __or__ = __ror__ = __and__ = __rand__ = __xor__ = __rxor__ = _raise
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        where, kind, _ = object.__getattribute__(self, "_what")
        return f"<NotCarried {where} ({kind})>"

    def __reduce__(self) -> Any:
        return NotCarried, object.__getattribute__(self, "_what")


def not_carried(error: EncodeError) -> dict[str, Any]:
    """The JSON of the marker for what an EncodeError refused."""
    return {"$notcarried": [error.path, error.type_name, error.reason]}


def _decode_not_carried(decoder: Decoder, data: Any) -> NotCarried:
    where, kind, reason = data
    return NotCarried(str(where), str(kind), str(reason))


def _not_carried(encoder: Encoder, value: NotCarried) -> Any:
    return {"$notcarried": list(object.__getattribute__(value, "_what"))}


add(Promise, _lazy_text, subclasses=True)
add(LazyObject, _lazy_object, subclasses=True)
add(BaseException, _exception, tag="$exception", decode=_decode_exception, subclasses=True)
add(NotCarried, _not_carried, tag="$notcarried", decode=_decode_not_carried)
