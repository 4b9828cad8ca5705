"""``coalesce=True``: deliveries of one transaction to one receiver about one instance become one."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any, cast

import pytest
from django.db import connection, transaction
from django.db.models import Value
from django.db.models.expressions import DatabaseDefault
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from django.test import TestCase
from django.utils import translation

from deferred_signals import NotCarried, Signal, backends, connect, context, register_carrier
from deferred_signals.backends.memory import MemoryBackend
from deferred_signals.exceptions import ConnectError
from deferred_signals.signals import delivery_published
from tests import receivers
from tests.receivers import first, on_instance, second
from tests.shop.models import Article, Code, Customer, Line, Ticket

restocked: Any = Signal()
inspected: Any = Signal()
real = pytest.mark.django_db(transaction=True)


def run(memory: MemoryBackend) -> list[dict[str, Any]]:
    """What the receivers were called with."""
    receivers.calls.clear()
    memory.deliver()
    return [kwargs for _, _, kwargs in receivers.calls]


@real
class TestSaves:
    def test_five_hundred_saves_of_one_row_publish_one_message(self, link, memory):
        link(post_save, on_instance, Customer, coalesce=True)
        published: list[Any] = []

        def observer(delivery: Any, **kwargs: Any) -> None:
            published.append(delivery.id)

        delivery_published.connect(observer)
        try:
            with transaction.atomic():
                ada = Customer.objects.create(name="0")
                ids = set()
                for number in range(499):
                    ada.name = str(number)
                    delivery: Any
                    [(_, delivery)] = post_save.send(
                        Customer, instance=ada, created=False, update_fields=None, raw=False, using="default"
                    )
                    ada.save()
                    ids.add(delivery.id)
        finally:
            delivery_published.disconnect(observer)
        assert published == list(ids)
        [kwargs] = run(memory)
        assert (kwargs["instance"].name, kwargs["created"], kwargs["update_fields"]) == ("498", True, None)

    def test_created_is_ored_and_update_fields_are_united(self, link, memory):
        ada = Customer.objects.create(name="Ada")
        link(post_save, on_instance, Customer, coalesce=True)
        with transaction.atomic():
            ada.save(update_fields=["name"])
            ada.save(update_fields=["email"])
        with transaction.atomic():
            ada.save(update_fields=["name"])
            ada.save()
        with transaction.atomic():
            Customer.objects.create(name="New").save(update_fields=["name"])
        assert [(kwargs["created"], kwargs["update_fields"]) for kwargs in run(memory)] == [
            (False, frozenset({"name", "email"})),
            (False, None),
            (True, None),
        ]

    def test_rows_models_receivers_and_databases_stay_apart(self, link, memory):
        link(post_save, on_instance, coalesce=True)
        link(post_save, second, Customer, coalesce=True)
        with transaction.atomic():
            for _ in range(2):
                Customer.objects.update_or_create(pk=1, defaults={"name": "Ada"})
                Customer.objects.update_or_create(pk=2, defaults={"name": "Grace"})
                Article.objects.update_or_create(pk="1")
        run(memory)
        assert sorted((name, str(kwargs["instance"].pk)) for name, _, kwargs in receivers.calls) == [
            ("on_instance", "1"),
            ("on_instance", "1"),
            ("on_instance", "2"),
            ("second", "1"),
            ("second", "2"),
        ]

    def test_it_takes_the_place_of_the_last(self, link, memory):
        link(post_save, on_instance, Customer, coalesce=True)
        with transaction.atomic():
            ada, grace = Customer.objects.create(name="Ada"), Customer.objects.create(name="Grace")
            ada.save()
        assert [kwargs["instance"] for kwargs in run(memory)] == [grace, ada]

    def test_outside_a_transaction_every_save_is_published(self, link, memory):
        link(post_save, on_instance, Customer, coalesce=True)
        ada = Customer.objects.create(name="Ada")
        ada.save()
        assert len(run(memory)) == 2

    def test_a_snapshot_is_of_the_last_state(self, link, memory):
        link(post_save, on_instance, Customer, coalesce=True, instance="snapshot")
        with transaction.atomic():
            ada = Customer.objects.create(name="Ada")
            ada.name = "Augusta Ada"
            ada.save()
        Customer.objects.update(name="later")
        assert [kwargs["instance"].name for kwargs in run(memory)] == ["Augusta Ada"]

    def test_changes_lead_from_the_first_to_the_last(self, link, memory):
        ada = Customer.objects.create(name="Ada", email="a@example.com")
        link(post_save, on_instance, Customer, coalesce=True, changes=True)
        with transaction.atomic():
            for name, email in [("B", "b@example.com"), ("C", "a@example.com")]:
                ada.name, ada.email = name, email
                ada.save()
        assert [kwargs["changes"] for kwargs in run(memory)] == [{"name": ("Ada", "C")}]

    def test_fixtures_and_saves_stay_apart(self, link, memory):
        link(post_save, on_instance, Customer, coalesce=True, deliver_raw=True)
        with transaction.atomic():
            ada = Customer.objects.create(name="Ada")
            ada.save_base(raw=True)
        assert [kwargs["raw"] for kwargs in run(memory)] == [False, True]

    def test_unsaved_instances_stay_apart(self, link, memory):
        link(pre_save, on_instance, Customer, coalesce=True)
        with transaction.atomic():
            Customer.objects.create(name="Ada")
            Customer.objects.create(name="Grace")
        assert [kwargs["instance"].name for kwargs in run(memory)] == ["Ada", "Grace"]

    @pytest.mark.parametrize(
        "make",
        [lambda: Line(text="a"), lambda: Customer(pk=DatabaseDefault(Value(7)))],
        ids=["composite", "db_default"],
    )
    def test_so_do_those_whose_keys_are_not_made_yet(self, make, link, memory):
        link(pre_save, on_instance, coalesce=True)
        with transaction.atomic():
            for _ in range(2):
                made = make()
                pre_save.send(type(made), instance=made, raw=False, using="default", update_fields=None)
        assert len(run(memory)) == 2

    @pytest.mark.parametrize("in_savepoints", [False, True])
    def test_what_would_be_too_large_together_stays_apart(self, in_savepoints, link, memory, settings):
        ada = Customer.objects.create(name="Ada")
        link(restocked, first, coalesce=True)
        restocked.send(Customer, instance=ada, update_fields=frozenset({"a" * 60}))
        [(delivery, _)] = memory.payloads
        memory.payloads.clear()
        settings.DEFERRED_SIGNALS = {**settings.DEFERRED_SIGNALS, "MAX_SIZE": len(delivery.text) + 60}
        with transaction.atomic():
            for letter in "abb":
                with transaction.atomic() if in_savepoints else nullcontext():
                    restocked.send(Customer, instance=ada, update_fields=frozenset({letter * 60}))
                    restocked.send(None)
        assert len({delivery.id for delivery, _ in memory.payloads}) == 5
        memory.payloads = [entry for entry in memory.payloads if "update_fields" in entry[0].text]
        assert [kwargs["update_fields"] for kwargs in run(memory)] == [frozenset({"a" * 60}), frozenset({"b" * 60})]

    def test_the_deepest_of_them_counts(self, link, memory):
        """A chain does not get shorter by coalescing with a send that is not part of it."""
        ada = Customer.objects.create(name="Ada")
        link(restocked, first, coalesce=True)
        link(inspected, receivers.curious)
        receivers.inquiries.append(lambda **kwargs: restocked.send(Customer, instance=ada))
        inspected.send(None)
        with transaction.atomic():
            memory.deliver()
            restocked.send(Customer, instance=ada)
        [(delivery, _)] = memory.payloads
        assert delivery.depth == 1


@real
class TestSavepoints:
    def test_what_is_rolled_back_leaves_nothing_in_the_one_that_stays(self, link, memory):
        ada = Customer.objects.create(name="Ada")
        link(post_save, on_instance, Customer, coalesce=True)
        with transaction.atomic():
            ada.save(update_fields=["name"])
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                ada.save(update_fields=["email"])
                raise ValueError("no")
        assert [kwargs["update_fields"] for kwargs in run(memory)] == [frozenset({"name"})]

    def test_what_stays_of_several_savepoints_becomes_one_under_the_first_id(self, link, memory):
        ada = Customer.objects.create(name="Ada")
        link(post_save, on_instance, Customer, coalesce=True)
        delivery: Any
        with transaction.atomic():
            with transaction.atomic():
                [(_, delivery)] = post_save.send(
                    Customer, instance=ada, created=False, update_fields=frozenset(), raw=False, using="default"
                )
            for field in ("name", "email"):
                with transaction.atomic():
                    ada.save(update_fields=[field])
            ada.save(update_fields=["name"])
        assert [one.id for one, _ in memory.payloads] == [delivery.id]
        assert [kwargs["update_fields"] for kwargs in run(memory)] == [frozenset({"name", "email"})]

    def test_changes_lead_on_in_the_order_of_the_sends(self, link, memory):
        ada = Customer.objects.create(name="a")
        link(post_save, on_instance, Customer, coalesce=True, changes=True)

        def rename(name: str) -> None:
            ada.name = name
            ada.save()

        with transaction.atomic():
            rename("b")
            with transaction.atomic():
                rename("c")
            rename("d")
        with transaction.atomic():
            rename("e")
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                rename("lost")
                raise ValueError("no")
            rename("f")
        assert [kwargs["changes"] for kwargs in run(memory)] == [{"name": ("a", "d")}, {"name": ("d", "f")}]

    def test_no_two_deliveries_have_one_id(self, link, memory):
        """After the last send an empty savepoint is rolled back: then the hooks know nothing of each other."""
        ada = Customer.objects.create(name="Ada")
        link(post_save, on_instance, Customer, coalesce=True)
        with transaction.atomic():
            ada.save()
            with transaction.atomic():
                ada.save()
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                raise ValueError("no")
        ids = [delivery.id for delivery, _ in memory.payloads]
        assert len(ids) == len(set(ids)) == 2

    def test_what_cannot_be_coalesced_leaves_by_itself(self, link, memory, monkeypatch, caplog):
        """After the commit nothing may be lost, whatever a bug of ours does."""
        ada = Customer.objects.create(name="Ada")
        link(post_save, on_instance, Customer, coalesce=True)

        def broken(deliveries: Any) -> Any:
            raise LookupError

        monkeypatch.setattr("deferred_signals.frame.coalesced", broken)
        ran: list[int] = []
        with transaction.atomic():
            ada.save()
            with transaction.atomic():
                ada.save()
            transaction.on_commit(lambda: ran.append(1))
        assert (len(run(memory)), ran) == (2, [1])
        assert "could not be coalesced" in caplog.text

    def test_after_a_rollback_the_rest_still_becomes_one(self, link, memory):
        ada = Customer.objects.create(name="Ada")
        link(post_save, on_instance, Customer, coalesce=True)
        with transaction.atomic():
            with transaction.atomic():
                ada.save(update_fields=["name"])
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                ada.save()
                raise ValueError("no")
            ada.save(update_fields=["email"])
        assert [kwargs["update_fields"] for kwargs in run(memory)] == [frozenset({"name", "email"})]

    def test_transactions_stay_apart(self, link, memory):
        ada = Customer.objects.create(name="Ada")
        link(post_save, on_instance, Customer, coalesce=True)
        for _ in range(2):
            with transaction.atomic():
                ada.save()
        assert len({delivery.id for delivery, _ in memory.payloads}) == 2


@real
class TestOtherSignals:
    def test_keys_of_one_many_to_many_action_are_united(self, link, memory):
        article = Article.objects.create(title="Tea")
        ada, grace = Customer.objects.create(name="Ada"), Customer.objects.create(name="Grace")
        link(m2m_changed, first, Article.buyers.through, coalesce=True)
        with transaction.atomic():
            article.buyers.add(ada)
            article.buyers.add(grace)
            article.buyers.remove(ada)
            article.buyers.clear()
        told = [(kwargs["action"], kwargs["pk_set"]) for kwargs in run(memory)]
        assert told == [
            ("pre_add", {ada.pk, grace.pk}),
            ("post_add", {ada.pk, grace.pk}),
            ("pre_remove", {ada.pk}),
            ("post_remove", {ada.pk}),
            ("pre_clear", None),
            ("post_clear", None),
        ]

    def test_to_add_remove_and_add_again_tells_the_same_story(self, link, memory):
        article = Article.objects.create(title="Tea")
        ada, grace = Customer.objects.create(name="Ada"), Customer.objects.create(name="Grace")
        link(m2m_changed, first, Article.buyers.through, coalesce=True)
        with transaction.atomic():
            article.buyers.add(ada)
            article.buyers.remove(ada)
            article.buyers.add(grace)
        told = [(kwargs["action"], kwargs["pk_set"]) for kwargs in run(memory)]
        assert [one for one in told if one[0].startswith("post")] == [
            ("post_add", {ada.pk}),
            ("post_remove", {ada.pk}),
            ("post_add", {grace.pk}),
        ]

    def test_each_connection_of_a_receiver_gets_its_own(self, link, memory):
        link(post_save, on_instance, Customer, coalesce=True, queue="a")
        link(post_save, on_instance, coalesce=True, queue="b")
        with transaction.atomic():
            ada = Customer.objects.create(name="Ada")
            ada.save()
        assert sorted(str(delivery.options.queue) for delivery, _ in memory.payloads) == ["a", "b"]

    def test_what_carriers_captured_keeps_sends_apart(self, link, memory, calls):
        ada = Customer.objects.create(name="Ada")
        tenant = ["acme"]
        register_carrier("tenant", capture=lambda: tenant[0], restore=nullcontext)
        link(post_save, on_instance, Customer, coalesce=True)
        try:
            with transaction.atomic():
                ada.save()
                tenant[0] = "globex"
                ada.save()
                with translation.override("de"):
                    ada.save()
            contexts = [json.loads(delivery.text)["context"] for delivery, _ in memory.payloads]
        finally:
            context.unregister_carrier("tenant")
        assert [(one["tenant"], one["language"]) for one in contexts] == [("acme", "en"), ("globex", "de")]

    def test_changes_that_cannot_travel_are_no_reason_to_fail(self, link, memory):
        ticket = Ticket.objects.create(code=Code("T1"))
        link(post_save, first, Ticket, coalesce=True, changes=True)
        with transaction.atomic():
            for text in "xy":
                ticket.sealed = Code(text)
                ticket.save()
        [kwargs] = run(memory)
        assert isinstance(kwargs["changes"], NotCarried)

    @pytest.mark.parametrize("first_is_sealed", [True, False])
    def test_changes_of_which_some_cannot_travel_do_not_tell_the_others(self, first_is_sealed, link, memory):
        ticket = Ticket.objects.create(code=Code("T1"))
        link(post_save, first, Ticket, coalesce=True, changes=True)

        def seal() -> None:
            ticket.sealed = Code("x")
            ticket.save()

        with transaction.atomic():
            for step in [seal, ticket.save] if first_is_sealed else [ticket.save, seal]:
                step()
        [kwargs] = run(memory)
        assert isinstance(kwargs["changes"], NotCarried)

    def test_of_a_signal_of_ones_own_the_last_arguments_arrive(self, link, memory):
        ada = Customer.objects.create(name="Ada")
        link(restocked, first, coalesce=True)
        with transaction.atomic():
            restocked.send(Customer, instance=ada, number=1, update_fields=["a"])
            restocked.send(Customer, instance=ada, number=2, update_fields={"b"})
            restocked.send(Customer, instance=ada, number=3, update_fields="c")
        [kwargs] = run(memory)
        assert (kwargs["number"], kwargs["update_fields"]) == (3, "c")

    def test_what_is_about_no_instance_is_never_left_out(self, link, memory):
        link(restocked, first, coalesce=True)
        with transaction.atomic():
            restocked.send(None, number=1)
            restocked.send(None, number=2)
            restocked.send(None, instance="Ada", number=3)
        assert [kwargs["number"] for kwargs in run(memory)] == [1, 2, 3]

    def test_a_deletion_is_a_snapshot_of_what_was(self, link, memory):
        ada = Customer.objects.create(name="Ada")
        link(post_delete, on_instance, Customer, coalesce=True)
        with transaction.atomic():
            ada.delete()
        assert [kwargs["instance"].name for kwargs in run(memory)] == ["Ada"]


def test_without_waiting_for_the_commit_there_is_nothing_to_coalesce():
    with pytest.raises(ConnectError, match="on_commit=False"):
        connect(restocked, first, deferred=True, coalesce=True, on_commit=False)


class TestInsideATestCase(TestCase):
    """Hooks do not run by themselves there; captureOnCommitCallbacks shows those that were registered inside it."""

    def setUp(self) -> None:
        connect(post_save, on_instance, Customer, deferred=True, coalesce=True)
        self.ada = Customer.objects.create(name="Ada")

    def tearDown(self) -> None:
        post_save.disconnect(on_instance, Customer)

    def delivered(self) -> list[Any]:
        backend = backends.current()
        assert isinstance(backend, MemoryBackend)
        return [(kwargs["created"], kwargs["instance"].name) for kwargs in run(backend)]

    def test_saves_become_one_and_the_test_sees_it(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            self.ada.save()
            self.ada.save()
        assert self.delivered() == [(True, "Ada")]

    def test_a_savepoint_that_is_rolled_back_takes_nothing_with_it(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            self.ada.save(update_fields=["name"])
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                self.ada.save()
                raise ValueError("no")
        assert self.delivered() == [(True, "Ada")]

    def test_what_a_hook_has_handed_over_is_not_sent_again(self) -> None:
        for _ in range(2):
            with self.captureOnCommitCallbacks(execute=True):
                self.ada.save()
        assert self.delivered() == [(True, "Ada"), (False, "Ada")]
        assert connection.in_atomic_block


@real
def test_a_key_that_cannot_be_hashed_is_merged_with_none(link, memory):
    link(pre_save, first, Customer, coalesce=True)
    with transaction.atomic():
        for _ in range(2):
            pre_save.send(Customer, instance=Customer(pk=cast(Any, [])), raw=False, using="default", update_fields=None)
    assert len(run(memory)) == 2
