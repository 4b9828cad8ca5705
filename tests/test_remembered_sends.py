"""A connection remembers much of its last sends; whatever that is, the next one reads as if it were the first."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple

from django.test import override_settings
from django.utils import timezone, translation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deferred_signals import Signal, register_carrier
from deferred_signals.arguments import Arguments
from deferred_signals.context import unregister_carrier
from deferred_signals.deferred_receiver import DeferredReceiver
from deferred_signals.exceptions import EncodeError
from tests.receivers import second
from tests.shop.models import Customer, Order, Regular

bell: Any = Signal()


class Around(NamedTuple):
    """What a send is made in."""

    language: str | None
    zone: str | None
    #: Of Django's and ours, those that are others than in the settings of the tests.
    settings: dict[str, Any]
    tenant: str | None


class Send(NamedTuple):
    sender: Any
    named: dict[str, Any]
    around: Around


def row(pk: Any, model: Any, alias: str | None, *, is_saved: bool) -> Any:
    made = model(pk=pk)
    made._state.adding, made._state.db = not is_saved, alias
    return made


pks = st.integers(0, 20) | st.sampled_from([None, True, -1, 2**63, "7"])
aliases = st.sampled_from(["default", "default", "other", None])
often = st.sampled_from([True, True, True, False])
rows = st.builds(row, pks, st.sampled_from([Customer, Customer, Regular]), aliases, is_saved=often)
words = st.sampled_from(["default", "", "True", "é", ',1,"default"]', "x" * 21])
values = rows | st.booleans() | st.none() | words | st.sampled_from([0, 1, 1.0, 2**64, [1]])
arguments = st.builds(
    lambda instance, created, more: {"instance": instance, "created": created, **more},
    rows,
    st.sampled_from([True, 1, False, 0]),
    st.just({}) | st.dictionaries(st.sampled_from(["created", "using", "other"]), values, max_size=2),
)
senders = st.sampled_from([None, Customer, Customer, Order, "a word", 1, True, row(1, Customer, None, is_saved=True)])
other_settings = st.sampled_from(
    [{}, {}, {"LANGUAGE_CODE": "de"}, {"TIME_ZONE": "Asia/Tokyo"}, {"USE_I18N": False}, {"MAX_SIZE": 230}]
)
arounds = st.builds(
    Around,
    st.sampled_from([None, None, "de", "fr"]),
    st.sampled_from([None, None, "Asia/Tokyo"]),
    other_settings,
    st.sampled_from([None, None, None, "acme"]),
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(sends=st.lists(st.builds(Send, senders, arguments, arounds), min_size=2, max_size=20))
def test_each_send_reads_as_if_it_were_the_first(link, monkeypatch, sends):
    link(bell, second)
    (used,) = [part for entry in bell.receivers for part in entry if isinstance(part, DeferredReceiver)]
    monkeypatch.setattr("time.time", lambda: 1_790_000_000.5)
    for one in sends:
        with around(one.around):
            fresh = DeferredReceiver(used.registration, bell, None, used.key, used.options)
            with monkeypatch.context() as patch:
                patch.setattr(Arguments, "text", lambda self, named: None)
                expected = outcome(fresh, one)
            assert outcome(used, one) == expected


def around(one: Around) -> ExitStack:
    stack = ExitStack()
    changed = dict(one.settings)
    if (largest := changed.pop("MAX_SIZE", None)) is not None:
        changed["DEFERRED_SIGNALS"] = {"BACKEND": "memory", "MAX_SIZE": largest}
    stack.enter_context(override_settings(**changed))
    if one.language is not None:
        stack.enter_context(translation.override(one.language))
    if one.zone is not None:
        stack.enter_context(timezone.override(one.zone))
    if one.tenant is not None:
        register_carrier("tenant", capture=lambda: one.tenant, restore=lambda value: nullcontext())
        stack.callback(unregister_carrier, "tenant")
    return stack


def outcome(stand_in: DeferredReceiver, send: Send) -> Any:
    """The text of the delivery but for its id, or why there is none."""
    try:
        delivery = stand_in(bell, send.sender, **send.named)
    except EncodeError as error:
        return str(error)
    assert delivery is not None
    return delivery.text.replace(delivery.id, ""), delivery.receiver, delivery.signal, delivery.at, delivery.options
