"""The codecs of text, numbers, dates and times, bytes, paths and IP addresses."""

from __future__ import annotations

import base64
import functools
import ipaddress
import math
import pathlib
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from importlib import import_module
from json.encoder import encode_basestring
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.safestring import SafeString

from ..exceptions import EncodeError, UnknownName
from ..localisation import zone_from_text, zone_to_text
from .base import Decoder, Encoder, add, type_name


def _as_is(encoder: Encoder, value: Any) -> Any:
    return value


def _write_constant(value: Any) -> str:
    return "null" if value is None else "true" if value else "false"


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


def _write_str(value: str) -> str | None:
    return encode_basestring(value) if value.isascii() else None


def write_int(value: int) -> str | None:
    """The text of a number that needs no tag."""
    return str(value) if -(2**63) <= value < 2**64 else None


def _float(encoder: Encoder, value: float) -> Any:
    return value if math.isfinite(value) else {"$float": repr(value)}


def _decode_float(decoder: Decoder, data: Any) -> float:
    if data not in ("nan", "inf", "-inf"):
        raise ValueError("not one of those that JSON has no word for")
    # A new NaN each time, for each is a key of its own.
    return float(data)


#: Time zones of others that are one object for ever: the type, and the module and name that hold it.
_SINGLE_ZONES = {"dateutil.tz.tz.tzutc": "dateutil.tz:UTC", "pytz.UTC": "pytz:utc"}


def _zone(value: tzinfo) -> str:
    kind = type(value)
    if kind is timezone or (kind is ZoneInfo and _has_key(value)):
        return str(zone_to_text(value))
    try:
        return _SINGLE_ZONES[type_name(value)]
    except KeyError:
        raise EncodeError(
            "a time zone must be a zoneinfo.ZoneInfo with a key, a fixed offset, or the UTC of dateutil or pytz. "
            "Send the datetime with one of those (when.astimezone(...)).",
            type_name(value),
        ) from None


def _has_key(zone: Any) -> bool:
    """Whether a key leads to the zone again: one that was read from a file may have the key of another one."""
    try:
        # Not the same object as the key leads to: it may still be pickled by its key, which one of a file refuses.
        return ZoneInfo(zone.key) is zone or bool(zone.__reduce__())
    except Exception:  # noqa: BLE001 - a key that leads nowhere fails in many ways
        return False


def _from_zone(text: str) -> tzinfo:
    if text not in _SINGLE_ZONES.values():
        return zone_from_text(text)
    module, _, name = text.partition(":")
    try:
        # Out of a closed table of ours: the wire chooses none of these names.
        return getattr(import_module(module), name)  # type: ignore[no-any-return]
    except ImportError:
        raise UnknownName(f"The payload has a time zone of {module}, which is not installed here.") from None


def _when(encoder: Encoder, value: datetime | time) -> list[Any]:
    zone = None if value.tzinfo is None else _str(encoder, _zone(value.tzinfo))
    return [value.replace(tzinfo=None).isoformat(), zone, value.fold]


def _decode_when(kind: Any) -> Any:
    def decode(decoder: Decoder, data: Any) -> Any:
        text, zone, fold = data
        return kind.fromisoformat(text).replace(tzinfo=zone and _from_zone(zone), fold=fold)

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


def _named_text(tag: str, *kinds: type) -> None:
    """Add the codec of classes of one family that a string says completely; the name of the class goes with it."""
    by_name: dict[str, Any] = {kind.__name__: kind for kind in kinds}

    def decode(decoder: Decoder, data: Any) -> Any:
        name, text = data
        if type(text) is not str:
            raise ValueError("not a string")
        return by_name[name](text)

    for kind in kinds:
        add(
            kind,
            lambda encoder, value: {tag: [type(value).__name__, _str(encoder, str(value))]},
            tag=tag,
            decode=decode,
        )


add(type(None), _as_is, write=_write_constant)
add(bool, _as_is, write=_write_constant)
add(str, _str, write=_write_str)
add(int, _int, tag="$int", decode=lambda decoder, data: int(data, 16), write=write_int)
add(float, _float, tag="$float", decode=_decode_float)
for _name in (datetime, "freezegun.api.FakeDatetime"):
    add(
        _name,
        lambda encoder, value: {"$datetime": _when(encoder, value)},
        tag="$datetime",
        decode=_decode_when(datetime),
    )
add("freezegun.api.FakeDate", lambda encoder, value: {"$date": value.isoformat()})
add(time, lambda encoder, value: {"$time": _when(encoder, value)}, tag="$time", decode=_decode_when(time))
add(timedelta, _timedelta, tag="$timedelta", decode=_decode_timedelta)
_named_text("$path", pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
_named_text(
    "$ip",
    *(getattr(ipaddress, f"IPv{version}{kind}") for version in (4, 6) for kind in ("Address", "Network", "Interface")),
)
text_codec(SafeString, "$safe", str.__str__, SafeString)
text_codec(bytes, "$bytes", _base64, _from_base64)
text_codec(bytearray, "$bytearray", _base64, lambda text: bytearray(_from_base64(text)))
text_codec(date, "$date", date.isoformat, date.fromisoformat)
text_codec(Decimal, "$decimal", str, Decimal)
text_codec(uuid.UUID, "$uuid", str, uuid.UUID)
for _zone_kind in (ZoneInfo, timezone, *_SINGLE_ZONES):
    text_codec(_zone_kind, "$timezone", _zone, _from_zone)
