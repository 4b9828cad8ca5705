"""Python values to JSON and back, with their types.

What JSON says itself travels as it is: None, True, False, strings, lists, finite floats, ints of up to 64 bits and
dicts whose keys are strings. Everything else is an object with one key, a tag: ``{"$decimal": "1.10"}``. A dict
with a key that starts with ``$`` is written as ``{"$dict": [[key, value], …]}``, so no user data can look like a
tag. ``register_codec`` adds a type; the built-in ones are added in the same way.
"""

# The basic types at once, the others at the first value: who first encodes under a library that swaps the classes of
# ``datetime`` (freezegun) must not have us take those for the real ones.
from . import scalars as scalars
from .base import Decoder, Encoder
from .custom import register_codec
from .stand_ins import CarriedError, NotCarried

__all__ = ["CarriedError", "Decoder", "Encoder", "NotCarried", "register_codec"]
