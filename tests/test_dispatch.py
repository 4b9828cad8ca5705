"""Connecting: every form that Django knows, deferred and not, and what is refused."""

from __future__ import annotations

import functools
import subprocess
import sys
import uuid
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.apps.registry import Apps
from django.db.backends.signals import connection_created
from django.db.models import signals as model_signals
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal as DjangoSignal
from django.dispatch import receiver as django_receiver

from deferred_signals import Delivery, Signal, connect, disconnect, receiver, registry
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.exceptions import ConnectError, EncodeError, UnknownReceiver
from deferred_signals.signals import delivery_finished
from tests import receivers
from tests.receivers import Heir, Holder, asynchronous, first, on_item, second, some_view, wrapped
from tests.shop.models import Article, Customer

# Any: Django's stubs say that every response is a string.
pizza_done: Any = Signal()
pizza_lost = Signal(providing_args=["toppings", "size"])
plain = DjangoSignal()

Calls = list[tuple[str, Any, dict[str, Any]]]

each_way = pytest.mark.parametrize("deferred", [False, True], ids=["inline", "deferred"])


def heard(memory: MemoryBackend, calls: Calls) -> list[str]:
    """The receivers that were called, after whatever waits has been delivered."""
    memory.deliver()
    return [name for name, _, _ in calls]


@each_way
class TestEveryFormOfConnecting:
    def test_a_custom_signal_connects_sends_and_disconnects(self, deferred, memory, calls):
        pizza_done.connect(first, deferred=deferred)
        pizza_done.send(sender=None, toppings=["ham"])
        assert heard(memory, calls) == ["first"]
        assert calls[0][2] == {"signal": pizza_done, "toppings": ["ham"]}
        assert pizza_done.disconnect(first)
        pizza_done.send(sender=None, toppings=[])
        assert heard(memory, calls) == ["first"]

    def test_the_decorator_takes_one_signal(self, deferred, memory, calls, link):
        assert receiver(pizza_done, deferred=deferred)(first) is first
        pizza_done.send(sender=None)
        assert heard(memory, calls) == ["first"]
        disconnect(pizza_done, first)

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_the_decorator_takes_several_signals(self, deferred, kind, memory, calls):
        several = kind([pizza_done, pizza_lost])
        receiver(several, deferred=deferred)(first)
        pizza_done.send(sender=None)
        pizza_lost.send(sender=None)
        assert heard(memory, calls) == ["first", "first"]
        assert [kwargs["signal"] for _, _, kwargs in calls] == [pizza_done, pizza_lost]
        assert [disconnect(one, first) for one in several] == [True, True]

    @pytest.mark.parametrize("sender", [Customer, some_view, None, "waiter"], ids=["class", "function", "none", "text"])
    def test_a_sender_arrives_as_what_it_is(self, deferred, sender, memory, calls, link):
        link(pizza_done, first, sender, deferred=deferred)
        pizza_done.send(sender=sender)
        pizza_done.send(sender=Holder)
        assert heard(memory, calls)[0] == "first"
        assert calls[0][1] is sender or calls[0][1] == sender == "waiter"

    def test_only_the_sender_that_was_asked_for_is_heard(self, deferred, memory, calls, link):
        link(pizza_done, first, Customer, deferred=deferred)
        pizza_done.send(sender=Article)
        assert heard(memory, calls) == []

    def test_a_sender_instance_arrives_itself_or_as_its_class(self, deferred, memory, calls, link):
        holder = Holder()
        link(pizza_done, first, holder, deferred=deferred)
        pizza_done.send(sender=holder)
        assert heard(memory, calls) == ["first"]
        assert calls[0][1] is (Holder if deferred else holder)

    def test_a_dispatch_uid_connects_once_and_disconnects(self, deferred, memory, calls):
        for _ in range(2):
            pizza_done.connect(first, dispatch_uid="only one", deferred=deferred)
        pizza_done.send(sender=None)
        assert heard(memory, calls) == ["first"]
        assert pizza_done.disconnect(dispatch_uid="only one")
        assert not pizza_done.has_listeners()

    def test_the_called_decorator_holds_its_receiver(self, deferred, memory, calls):
        assert pizza_done.connect(deferred=deferred, sender=Customer)(first) is first
        pizza_done.send(sender=Customer)
        assert heard(memory, calls) == ["first"]
        assert pizza_done.disconnect(first, sender=Customer)

    def test_djangos_own_decorator_passes_deferred_on(self, deferred, memory, calls):
        django_receiver(pizza_done, deferred=deferred)(first)
        pizza_done.send(sender=None)
        assert heard(memory, calls) == ["first"]
        assert pizza_done.disconnect(first)

    def test_a_signal_of_django_or_a_third_party_can_be_connected(self, deferred, memory, calls):
        assert connect(plain, first, deferred=deferred) is first
        plain.send(sender=None)
        assert heard(memory, calls) == ["first"]
        assert plain.disconnect(first)
        assert not plain.has_listeners()

    def test_static_and_class_methods_can_be_connected(self, deferred, memory, calls, link):
        for function in (Holder.static, Holder.of_class, Heir.of_class):
            link(pizza_done, function, deferred=deferred)
        pizza_done.send(sender=None)
        assert heard(memory, calls) == ["static", "of_class Holder", "of_class Heir"]

    def test_a_class_method_disconnects_like_a_function(self, deferred):
        connect(pizza_done, Holder.of_class, deferred=deferred)
        assert pizza_done.disconnect(Holder.of_class)
        assert not pizza_done.has_listeners()

    def test_a_wrapped_receiver_is_called_through_its_wrapper(self, deferred, memory, calls, link):
        link(pizza_done, wrapped, deferred=deferred)
        pizza_done.send(sender=None)
        assert heard(memory, calls) == ["wrapped"]

    def test_an_async_receiver_is_awaited(self, deferred, memory, calls, link):
        link(pizza_done, asynchronous, deferred=deferred)
        pizza_done.send(sender=None)
        assert heard(memory, calls) == ["asynchronous"]

    def test_connecting_twice_is_connecting_once(self, deferred, memory, calls, link):
        link(pizza_done, first, deferred=deferred)
        link(pizza_done, first, deferred=deferred)
        pizza_done.send(sender=None)
        assert heard(memory, calls) == ["first"]


class TestTheFourSends:
    def test_send_returns_the_delivery_as_the_response(self, memory, link):
        link(pizza_done, first)
        link(pizza_done, second, deferred=False)
        (stand_in, delivery), (inline, nothing) = pizza_done.send(sender=None)
        assert isinstance(delivery, Delivery)
        assert (stand_in.__qualname__, inline, nothing) == ("first", second, None)
        ((waiting, _),) = memory.payloads
        assert waiting is delivery

    def test_send_robust_returns_what_cannot_travel_as_the_response(self, memory, link):
        link(pizza_done, on_item)
        link(pizza_done, second)
        (_, error), (_, delivery) = pizza_done.send_robust(sender=None, item=object())
        assert isinstance(error, EncodeError)
        assert isinstance(delivery, Delivery)

    async def test_asend_publishes(self, memory, link):
        link(pizza_done, asynchronous)
        ((_, delivery),) = await pizza_done.asend(sender=None)
        assert isinstance(delivery, Delivery)

    async def test_asend_robust_publishes(self, memory, link):
        link(pizza_done, first)
        ((_, delivery),) = await pizza_done.asend_robust(sender=None)
        assert isinstance(delivery, Delivery)

    def test_the_id_of_each_delivery_is_a_random_uuid_as_text(self, memory, link):
        link(pizza_done, first)
        ids = [response.id for _ in range(100) for _, response in pizza_done.send(sender=None)]
        assert len(set(ids)) == 100
        for one in ids:
            read = uuid.UUID(one)
            assert (str(read), read.version, read.variant) == (one, 4, uuid.RFC_4122)

    def test_none_of_the_four_is_overridden(self):
        for name in ("send", "send_robust", "asend", "asend_robust", "disconnect", "has_listeners"):
            assert getattr(Signal, name) is getattr(DjangoSignal, name)


@pytest.mark.django_db
class TestModelSignals:
    @pytest.mark.parametrize("signal", [pre_save, post_save, pre_delete, post_delete])
    @each_way
    def test_every_model_signal_arrives_with_its_instance(
        self, signal, deferred, memory, calls, link, django_capture_on_commit_callbacks
    ):
        link(signal, receivers.on_instance, Customer, deferred=deferred)
        with django_capture_on_commit_callbacks(execute=True):
            customer = Customer.objects.create(name="Ada")
            pk = customer.pk
            customer.delete()
        # The row is gone by now, so a reference to it is discarded: that is its rule, not a loss.
        expected = [] if deferred and signal is post_save else ["on_instance"]
        assert heard(memory, calls) == expected
        for _, sender, kwargs in calls:
            assert sender is Customer
            assert kwargs["instance"].name == "Ada"
            assert kwargs["instance"].pk == (None if deferred and signal is pre_save else pk) or not deferred

    def test_a_lazy_sender_is_resolved(self, memory, calls, link):
        link(post_save, first, "shop.Customer", on_commit=False)
        Customer.objects.create(name="Ada")
        Article.objects.create(title="Pot")
        assert heard(memory, calls) == ["first"]

    def test_a_lazy_sender_is_the_same_as_its_model(self, link):
        link(post_save, first, Customer)
        link(post_save, first, "shop.Customer")
        with pytest.raises(ConnectError, match="already, with other options"):
            connect(post_save, first, "shop.Customer", deferred=True, queue="other")

    def test_a_lazy_sender_may_have_to_be_waited_for(self):
        registry = Apps()  # one of its own: what waits in the real one, waits for ever
        connect(post_save, wrapped, "shop.Unborn", deferred=True, apps=registry)
        connect(post_save, wrapped, "shop.Unborn", deferred=True, apps=registry)
        with pytest.raises(ConnectError, match="other options"):
            connect(post_save, wrapped, "shop.Customer", deferred=True, max_retries=9)

    def test_disconnect_on_djangos_own_signal_finds_the_plain_function(self):
        connect(post_save, first, Customer, deferred=True)
        assert post_save.disconnect(first, sender=Customer)
        assert not post_save.has_listeners(Customer)


class TestWhoLooksAtTheReceivers:
    def test_the_stand_in_has_the_functions_name_and_is_not_async(self, link):
        link(pizza_done, asynchronous)
        ((stand_in, _),) = pizza_done.send(sender=None)
        assert (stand_in.__name__, stand_in.__module__) == ("asynchronous", "tests.receivers")
        assert not iscoroutinefunction(stand_in)
        assert repr(stand_in) == "<DeferredReceiver tests.receivers.asynchronous>"

    def test_a_function_marked_as_a_coroutine_gives_a_sync_stand_in(self, link, memory):
        from asgiref.sync import markcoroutinefunction

        def plain_function(sender: Any, **kwargs: Any) -> None: ...

        plain_function.__qualname__, plain_function.__module__ = "some_view", "tests.receivers"
        link(pizza_done, markcoroutinefunction(plain_function))
        assert [type(response) for _, response in pizza_done.send(sender=None)] == [Delivery]

    def test_debug_finds_a_receiver_without_kwargs(self, settings):
        settings.DEBUG = True
        with pytest.raises(ValueError, match="keyword arguments"):
            connect(pizza_done, receivers.without_kwargs, deferred=True)

    def test_debug_lets_a_receiver_be_connected_again_with_other_options(self, settings):
        settings.DEBUG = True  # Django's check then keeps the first stand-in alive
        for retries in (1, 2):
            connect(pizza_done, first, deferred=True, max_retries=retries)
            assert pizza_done.disconnect(first)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("function", "remedy"),
        [
            (lambda sender, **kwargs: None, "at module level"),
            (functools.partial(first), "functools.partial"),
            (Holder().of_instance, "static method or a class method"),
            (functools.partialmethod(first), "callable"),
            (Holder(), "callable"),
        ],
        ids=["lambda", "partial", "bound method", "partial method", "object"],
    )
    def test_what_a_worker_could_not_find_again(self, function, remedy):
        with pytest.raises(ConnectError, match=remedy):
            pizza_done.connect(function, deferred=True)
        assert not pizza_done.has_listeners()

    def test_a_callable_object(self):
        class Caller:
            def __call__(self, **kwargs: Any) -> None: ...

        with pytest.raises(ConnectError, match=r"Caller.* cannot be deferred.*at module level"):
            pizza_done.connect(Caller(), deferred=True)

    @pytest.mark.parametrize(
        "function",
        [vars(Holder)["of_class"], dict.fromkeys, Holder, 7],
        ids=["classmethod", "builtin", "class", "number"],
    )
    def test_what_is_no_function(self, function):
        with pytest.raises(ConnectError, match=r"Class.method|a function, static|must be callable"):
            connect(pizza_done, function, deferred=True)

    def test_a_second_signal_of_the_same_name(self, link):
        link(Signal(name="shop.done"), first)
        link(pizza_done, first)
        with pytest.raises(ConnectError, match="another signal of the same name="):
            connect(Signal(name="shop.done"), first, deferred=True)

    def test_a_local_function(self):
        def local(sender: Any, **kwargs: Any) -> None: ...

        with pytest.raises(ConnectError, match=r"<locals>.local' cannot be deferred.*at module level"):
            pizza_done.connect(local, deferred=True)

    def test_a_receiver_whose_dotted_path_is_longer_than_a_row_can_keep(self, monkeypatch):
        name = "n" * 256
        monkeypatch.setattr(receivers, name, second, raising=False)
        monkeypatch.setattr(second, "__qualname__", name)
        with pytest.raises(ConnectError, match=r"characters, and a name may have 255.*name="):
            pizza_done.connect(second, deferred=True)
        pizza_done.connect(second, deferred=True, name="second")
        pizza_done.disconnect(second)

    def test_a_receiver_of_the_main_module(self, monkeypatch):
        monkeypatch.setattr(second, "__module__", "__main__")
        with pytest.raises(ConnectError, match="another __main__"):
            pizza_done.connect(second, deferred=True)

    @pytest.mark.parametrize(
        "signal",
        [
            model_signals.class_prepared,
            model_signals.pre_init,
            model_signals.post_init,
            connection_created,
            delivery_finished,
        ],
    )
    def test_a_signal_for_which_deferring_means_nothing(self, signal):
        with pytest.raises(ConnectError, match=r"cannot have deferred receivers: .*\."):
            connect(signal, first, deferred=True)

    def test_an_option_of_deferred_receivers_for_an_inline_one(self):
        for attempt in (lambda: pizza_done.connect(first, queue="mail"), lambda: connect(plain, first, max_retries=1)):
            with pytest.raises(TypeError, match="add deferred=True"):
                attempt()

    def test_a_slip_in_the_one_word(self):
        for attempt in (
            lambda: receiver(post_save, deffered=True)(first),
            lambda: pizza_done.connect(first, defered=1),
        ):
            with pytest.raises(TypeError, match="Did you mean 'deferred'"):
                attempt()
        assert not pizza_done.has_listeners()

    @pytest.mark.parametrize("nonsense", [first, Customer, [post_save, "post_save"]])
    def test_a_decorator_without_a_signal(self, nonsense):
        with pytest.raises(TypeError, match="takes a signal or a list of signals"):
            receiver(nonsense)

    def test_an_inline_connection_of_what_is_deferred_already(self, link):
        link(pizza_done, first)
        link(plain, first)
        for signal in (pizza_done, plain):
            with pytest.raises(ConnectError, match="deferred, so Django would pass this inline connection over"):
                connect(signal, first)
        link(pizza_lost, first, deferred=False)
        link(pizza_done, first, Customer, deferred=False)

    def test_two_functions_under_one_path(self, link):
        link(pizza_done, first)

        def twin(sender: Any, **kwargs: Any) -> None: ...

        twin.__module__, twin.__qualname__ = first.__module__, first.__qualname__
        with pytest.raises(ConnectError, match=r"Two functions have the dotted path 'tests.receivers.first'"):
            pizza_lost.connect(twin, deferred=True)

    def test_an_argument_that_django_does_not_know_for_an_inline_one(self):
        with pytest.raises(TypeError, match="nonsense"):
            pizza_done.connect(first, nonsense=1)

    def test_a_function_that_is_connected_inline_already(self):
        pizza_done.connect(first)
        with pytest.raises(ConnectError, match="inline"):
            pizza_done.connect(first, deferred=True)
        assert pizza_done.disconnect(first)

    def test_a_repetition_with_other_options(self, link):
        link(pizza_done, first, queue="mail")
        with pytest.raises(ConnectError, match=r"already, with other options.*dispatch_uid"):
            pizza_done.connect(first, deferred=True, queue="bulk")
        link(pizza_done, first, queue="bulk", dispatch_uid="bulk")

    def test_a_repetition_under_another_name(self, link):
        link(pizza_done, first)
        with pytest.raises(ConnectError, match=r"deferred, as 'tests.receivers.first'.*dispatch_uid"):
            pizza_done.connect(first, deferred=True, name="tests.again")
        link(pizza_done, first, name="tests.again", dispatch_uid="again")

    def test_a_dispatch_uid_that_another_receiver_has(self, link):
        link(pizza_done, first, dispatch_uid="mine")
        with pytest.raises(ConnectError, match=r"dispatch_uid is connected .*, deferred, as 'tests.receivers.first'"):
            pizza_done.connect(second, deferred=True, dispatch_uid="mine")
        with pytest.raises(ConnectError, match=r"'second' or its dispatch_uid .* pass this inline connection over"):
            pizza_done.connect(second, dispatch_uid="mine")

    def test_what_is_no_signal(self):
        for deferred in (False, True):
            with pytest.raises(ConnectError, match="takes a signal"):
                connect("post_save", first, deferred=deferred)  # type: ignore[arg-type]

    def test_a_receiver_that_takes_an_argument_by_position_only(self):
        with pytest.raises(ConnectError, match=r"takes sender by position only.*Take the '/' out"):
            pizza_done.connect(receivers.by_position, deferred=True)
        assert not pizza_done.has_listeners()

    def test_one_name_with_two_sets_of_options_for_the_worker(self, link):
        link(pizza_done, first, max_retries=1)
        with pytest.raises(ConnectError, match="name="):
            pizza_lost.connect(first, deferred=True, max_retries=2)
        link(pizza_lost, first, max_retries=2, name="tests.other_name")

    def test_but_not_another_name_of_its_own(self, link):
        link(pizza_done, first, name="tests.old_name")
        link(pizza_lost, first, aliases=["tests.old_name"])

    @pytest.mark.parametrize("given", [{"name": "tests.receivers.first"}, {"aliases": ("tests.receivers.first",)}])
    def test_the_name_of_another_receiver(self, given, link):
        link(pizza_done, first)
        with pytest.raises(ConnectError, match=r"belongs to 'tests.receivers.first' already"):
            pizza_done.connect(second, deferred=True, **given)


class TestImporting:
    def test_the_package_needs_no_settings_and_imports_neither_celery_nor_models(self):
        code = (
            "import sys, deferred_signals as d\n"
            "signal = d.Signal()\n"
            "@signal.connect\n"
            "def inline(sender, **kwargs): return 7\n"
            "assert [value for _, value in signal.send(sender=None)] == [7]\n"
            "print('celery' in sys.modules, 'django.db.models' in sys.modules)\n"
            "from django.conf import settings\n"
            "print(settings.configured)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout == "False False\nFalse\n", done.stderr

    def test_the_bare_decorator_fires(self, memory, calls):
        signal = Signal()

        @signal.connect
        def local(sender: Any, **kwargs: Any) -> str:
            return "heard"

        assert [value for _, value in signal.send(sender=None)] == ["heard"]

    def test_providing_args_is_kept_as_documentation(self):
        assert pizza_lost.providing_args == ["toppings", "size"]
        assert Signal(use_caching=True).providing_args is None


def test_a_receiver_that_needs_changes_is_told_of_the_option(link):
    signal = Signal()
    link(signal, receivers.on_changes)
    with pytest.raises(TypeError, match=r"does not have: changes \(the option changes=True would add it\)"):
        signal.send(sender=None)


class TestAReceiverThatDoesNotTakeWhatIsSent:
    """As inline, the send raises: on the worker it would be retried, and dead, and nobody would see the mistake."""

    def test_the_send_says_what_it_does_not_take(self, link, memory):
        link(pizza_done, receivers.without_kwargs)
        with pytest.raises(TypeError, match=r"without_kwargs does not take .*: signal, toppings\. Give it \*\*kwargs"):
            pizza_done.send(sender=None, toppings=["ham"])
        assert memory.payloads == []

    def test_one_that_names_all_of_it_needs_no_kwargs(self, link, memory, calls):
        link(pizza_done, receivers.exactly)
        pizza_done.send(sender=None, toppings=["ham"])
        assert heard(memory, calls) == ["exactly"]

    def test_a_wrapper_takes_what_it_takes(self, link, memory, calls):
        link(pizza_done, receivers.behind_a_filter)
        pizza_done.send(sender=None, toppings=["ham"])
        assert heard(memory, calls) == ["behind_a_filter"]

    def test_one_that_is_cached_takes_what_its_function_takes(self, link, memory, calls):
        receivers.cached.cache_clear()
        link(pizza_done, receivers.cached)
        pizza_done.send(sender=None, toppings=3)
        assert heard(memory, calls) == ["cached"]


class TestWhatARefusalLeaves:
    def test_a_connection_that_is_refused_leaves_no_name(self, link):
        signal = Signal()
        signal.connect(first)
        try:
            with pytest.raises(ConnectError, match="inline"):
                signal.connect(first, deferred=True, name="refused")
        finally:
            signal.disconnect(first)
        with pytest.raises(UnknownReceiver):
            registry.get("refused")

    def test_it_leaves_the_name_to_whom_it_belonged(self, link, memory):
        signal: Any = Signal()
        link(signal, first, name="mine", max_retries=1)
        signal.send(sender=None)
        signal.disconnect(first)
        signal.connect(first)
        try:
            with pytest.raises(ConnectError, match="inline"):
                signal.connect(first, deferred=True, name="mine", max_retries=2)
        finally:
            signal.disconnect(first)
        assert registry.get("mine").options.max_retries == 1
        assert [outcome.state for _, outcome in memory.deliver()] == ["succeeded"]
