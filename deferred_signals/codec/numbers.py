"""The codecs of complex numbers, fractions and ranges."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from .base import Decoder, Encoder, add
from .containers import decoded_items


def _decoded(decoder: Decoder, data: Any, kind: type) -> list[Any]:
    # Exactly that type: these constructors ask an object of any other one for a number, which is code of its own.
    numbers = decoded_items(decoder, data)
    if any(type(number) is not kind for number in numbers):
        raise ValueError("not numbers of that kind")
    return numbers


def _complex(encoder: Encoder, value: complex) -> Any:
    return {"$complex": [encoder.encode(value.real), encoder.encode(value.imag)]}


def _decode_complex(decoder: Decoder, data: Any) -> complex:
    real, imaginary = _decoded(decoder, data, float)
    return complex(real, imaginary)


def _fraction(encoder: Encoder, value: Fraction) -> Any:
    return {"$fraction": [encoder.encode(value.numerator), encoder.encode(value.denominator)]}


def _decode_fraction(decoder: Decoder, data: Any) -> Fraction:
    # Not of a text: "1e999999999" would be a few bytes there and gigabytes here.
    numerator, denominator = _decoded(decoder, data, int)
    return Fraction(numerator, denominator)


def _range(encoder: Encoder, value: range) -> Any:
    return {"$range": [encoder.encode(number) for number in (value.start, value.stop, value.step)]}


def _decode_range(decoder: Decoder, data: Any) -> range:
    start, stop, step = _decoded(decoder, data, int)
    return range(start, stop, step)


add(complex, _complex, tag="$complex", decode=_decode_complex)
add(Fraction, _fraction, tag="$fraction", decode=_decode_fraction)
add(range, _range, tag="$range", decode=_decode_range)
