"""JSON as it stands on the wire: compact, and read strictly."""

from __future__ import annotations

import json
import math
import re
from typing import Any

# allow_nan=False: a bare NaN is not JSON. check_circular is the codec's depth limit.
dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def size_of(text: str) -> int:
    """The bytes of a text."""
    return len(text) if text.isascii() else len(text.encode())


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)

#: Levels of containers, which a stack of 1,000 frames can write and read again. A value of the deepest that the setting
#: MAX_DEPTH allows, 100, takes four of them for each of its own.
_DEEPEST = 500

_MAYBE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            part
            for one in level
            for part in (one.values() if type(one) is dict else one)
            if type(part) is dict or type(part) is list
        ]
        if not level:
            return False
    return True


def parse(text: str | bytes) -> Any:
    """The value of a JSON text, which ``dump`` can write again.

    Raises ValueError for what is none or what UTF-8 and finite numbers cannot say, RecursionError for what is too deep.
    """
    text = text if isinstance(text, str) else text.decode()
    made = _decoder.decode(text)
    if _MAYBE_SURROGATE.search(text):
        dump(made).encode()  # a pair of them is one character, which an escaped backslash may stand before
    # Most have few containers, and are not walked through.
    if text.count("[") + text.count("{") > _DEEPEST and type(made) in {list, dict} and _is_too_deep(made):
        raise RecursionError
    return made
