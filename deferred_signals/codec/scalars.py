"""The codecs of text, numbers, dates and times, bytes and paths."""

from __future__ import annotations

import base64
import functools
import math
import pathlib
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.safestring import SafeString

from ..context import zone_from_text, zone_to_text
from ..exceptions import EncodeError
from .base import Decoder, Encoder, add, type_name


def _as_is(encoder: Encoder, value: Any) -> Any:
    return value


def _str(encoder: Encoder, value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise EncodeError(
                "it contains a lone surrogate, which UTF-8 cannot say. Send bytes, or clean it.", "str"
            ) from None
    return value


def _int(encoder: Encoder, value: int) -> Any:
    # Beyond 64 bits JSON readers differ, and beyond 4,300 digits Python's own refuses.
    return value if -(2**63) <= value < 2**64 else {"$int": hex(value)}


def _float(encoder: Encoder, value: float) -> Any:
    return value if math.isfinite(value) else {"$float": repr(value)}


def _decode_float(decoder: Decoder, data: Any) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[data]


def _zone(value: tzinfo) -> str:
    text = zone_to_text(value)
    if text is None:
        raise EncodeError("a time zone must be a zoneinfo.ZoneInfo with a key or a fixed offset.", type_name(value))
    return text


def _when(value: datetime | time) -> list[Any]:
    zone = None if value.tzinfo is None else _zone(value.tzinfo)
    return [value.replace(tzinfo=None).isoformat(), zone, value.fold]


def _decode_when(kind: Any) -> Any:
    def decode(decoder: Decoder, data: Any) -> Any:
        text, zone, fold = data
        return kind.fromisoformat(text).replace(tzinfo=zone and zone_from_text(zone), fold=fold)

    return decode


def text_codec(kind: Any, tag: str, to_text: Callable[[Any], str], from_text: Callable[[str], Any]) -> None:
    """Add the codec of a type that a string says completely."""

    def decode(decoder: Decoder, data: Any) -> Any:
        if type(data) is not str:
            raise ValueError("not a string")
        return from_text(data)

    add(kind, lambda encoder, value: {tag: _str(encoder, to_text(value))}, tag=tag, decode=decode)


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


_from_base64 = functools.partial(base64.b64decode, validate=True)


def _timedelta(encoder: Encoder, value: timedelta) -> Any:
    return {"$timedelta": [value.days, value.seconds, value.microseconds]}


def _decode_timedelta(decoder: Decoder, data: Any) -> timedelta:
    days, seconds, microseconds = data
    return timedelta(days, seconds, microseconds)


_PATHS = {
    kind.__name__: kind
    for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
}


def _path(encoder: Encoder, value: pathlib.PurePath) -> Any:
    return {"$path": [type(value).__name__, _str(encoder, str(value))]}


def _decode_path(decoder: Decoder, data: Any) -> pathlib.PurePath:
    kind, text = data
    return _PATHS[kind](text)


add(type(None), _as_is)
add(bool, _as_is)
add(str, _str)
add(int, _int, tag="$int", decode=lambda decoder, data: int(data, 16))
add(float, _float, tag="$float", decode=_decode_float)
for _name in (datetime, "freezegun.api.FakeDatetime"):
    add(
        _name,
        lambda encoder, value: {"$datetime": _when(value)},
        tag="$datetime",
        decode=_decode_when(datetime),
    )
add("freezegun.api.FakeDate", lambda encoder, value: {"$date": value.isoformat()})
add(time, lambda encoder, value: {"$time": _when(value)}, tag="$time", decode=_decode_when(time))
add(timedelta, _timedelta, tag="$timedelta", decode=_decode_timedelta)
for _kind in _PATHS.values():
    add(_kind, _path, tag="$path", decode=_decode_path)
text_codec(SafeString, "$safe", str.__str__, SafeString)
text_codec(bytes, "$bytes", _base64, _from_base64)
text_codec(bytearray, "$bytearray", _base64, lambda text: bytearray(_from_base64(text)))
text_codec(date, "$date", date.isoformat, date.fromisoformat)
text_codec(Decimal, "$decimal", str, Decimal)
text_codec(uuid.UUID, "$uuid", str, uuid.UUID)
text_codec(ZoneInfo, "$timezone", _zone, zone_from_text)
text_codec(timezone, "$timezone", _zone, zone_from_text)
