"""Whatever JSON stands under a good signature: the decoder makes values of it, or says so in its own words."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from django.db import Error as DatabaseDriverError
from hypothesis import given
from hypothesis import strategies as st

from deferred_signals.codec import Decoder, Encoder, base
from deferred_signals.exceptions import DecodeError, InstanceMissing, NotYetKnown
from deferred_signals.strict_json import dump

from .test_codec_values import TEXT, VALUES

base.load()
#: What the database says of a nonsensical key passes through: unavailable is not wrong.
OURS = (DecodeError, NotYetKnown, InstanceMissing, DatabaseDriverError)
WORDS = st.sampled_from(
    [
        "auth.user",
        "shop.customer",
        "shop.order",
        "shop.line",
        "default",
        "other",
        "builtins.list",
        "builtins.dict",
        "builtins.eval",
        "os.system",
        "enum.Enum",
        "http.HTTPStatus",
        "re.RegexFlag",
        "tests.test_codec_values.Point",
        "tests.test_codec_values.Pair",
        "tests.test_codec_values.Colour",
        "tests.test_codec_values.Right",
        "tests.test_codec_values.post_save",
        "django_tasks.base.Task",
        "id",
        "name",
        "x",
        "PosixPath",
        "IPv4Address",
        "Europe/Vienna",
        "+3600.0 CET",
        "utf-8",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "10.0.0.1",
        "1E+999999",
        "0x10",
        "QQ==",
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-2, 3), st.floats(), TEXT, WORDS, st.just(10**400)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(TEXT | WORDS, inner, max_size=3),
        st.builds(lambda tag, data: {tag: data}, st.sampled_from([*sorted(base.tags), "$nobody knows"]), inner),
        st.tuples(st.sampled_from(sorted(base.tags)), st.lists(inner, min_size=1, max_size=4)).map(
            lambda pair: {pair[0]: pair[1]}
        ),
    ),
    max_leaves=12,
)


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every container of some JSON with every key or index in it."""
    inside = list(data.items()) if isinstance(data, dict) else list(enumerate(data)) if isinstance(data, list) else []
    return [(data, key) for key, _ in inside] + [place for _, item in inside for place in places(item)]


@pytest.mark.django_db(databases="__all__")
@given(JSON)
def test_any_json_is_a_value_or_an_error_of_ours(data: Any) -> None:
    with contextlib.suppress(*OURS):
        Decoder().decode(data)


@pytest.mark.django_db(databases="__all__")
@given(VALUES, st.data())
def test_a_payload_that_is_wrong_in_one_place_is_a_value_or_an_error_of_ours(value: Any, draw: st.DataObject) -> None:
    # A root of its own, so that the whole value can be replaced, too.
    data = [json.loads(dump(Encoder().encode(value)))]
    holder, key = draw.draw(st.sampled_from(places(data)))
    holder[key] = draw.draw(JSON)
    with contextlib.suppress(*OURS):
        Decoder().decode(data)


@given(VALUES)
def test_decoding_changes_nothing_of_the_json(value: Any) -> None:
    # A delivery may be decoded again: a retry of the memory backend, a redelivery of a captured one.
    data = json.loads(dump(Encoder().encode(value)))
    before = copy.deepcopy(data)
    Decoder().decode(data)
    assert dump(data) == dump(before)
