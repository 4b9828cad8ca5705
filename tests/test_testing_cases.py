"""The testing kit for unittest: the mixin, and immediate deliveries as a decorator of test cases."""

import unittest

import pytest
from django.contrib.auth.models import User
from django.db.models.signals import post_save
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from deferred_signals import connect, disconnect
from deferred_signals.testing import DeferredSignalsTestCase, immediate_deliveries
from tests import receivers


class Listening(SimpleTestCase):
    def setUp(self) -> None:
        connect(post_save, receivers.on_instance, sender=User, deferred=True)
        self.addCleanup(disconnect, post_save, receivers.on_instance, sender=User)


class WithTheMixin(DeferredSignalsTestCase):
    __test__ = False  # only what is made of it

    def test_it_captures(self):
        ada = User.objects.create_user("ada")
        (one,) = self.assertDeferred(receivers.on_instance, instance=ada, created=True, count=1)
        self.refuteDeferred(receivers.on_instance, created=False)
        assert len(self.deliveries) == 1
        assert [run.delivery for run in self.deliver()] == [one]
        assert len(receivers.calls) == 1

    def test_each_test_begins_with_nothing(self):
        assert len(self.deliveries) == 0
        with pytest.raises(AssertionError):
            self.assertDeferred(receivers.on_instance)
        User.objects.create_user("ada")
        with pytest.raises(AssertionError):
            self.refuteDeferred(receivers.on_instance)

    def test_idempotence(self):
        User.objects.create_user("ada")
        with pytest.raises(AssertionError, match="is not idempotent"):
            self.assertIdempotent(self.deliveries[0], state=lambda: len(receivers.calls))

    async def test_in_a_coroutine(self):
        await User.objects.acreate(username="ada")
        self.assertDeferred(receivers.on_instance, count=1)
        assert [run.outcome.state for run in await self.adeliver()] == ["succeeded"]


class InATestCase(WithTheMixin, Listening, TestCase):
    __test__ = True


class InATransactionTestCase(WithTheMixin, Listening, TransactionTestCase):
    __test__ = True


@immediate_deliveries()
class Decorated(Listening, TestCase):
    def test_each_test_runs_what_it_sends(self):
        User.objects.create_user("ada")
        assert len(receivers.calls) == 1

    def test_and_begins_anew(self):
        assert receivers.calls == []


def test_what_kills_a_delivery_fails_the_test_that_sent_it():
    @immediate_deliveries()
    class Case(unittest.TestCase):
        def setUp(self) -> None:
            connect(post_save, receivers.troubled, sender=User, deferred=True, max_retries=0)
            self.addCleanup(disconnect, post_save, receivers.troubled, sender=User)
            receivers.troubles[:] = [LookupError("gone")]

        def test_it(self) -> None:
            post_save.send(User, instance=User(pk=1), created=True, raw=False, using="default", update_fields=None)

    result = unittest.TestResult()
    Case("test_it").run(result)
    (((_, text),)) = result.errors
    assert "LookupError: gone" in text
    assert "So died the delivery" in text


def test_a_test_that_is_debugged_captures_too():
    class Case(DeferredSignalsTestCase):
        def test_it(self) -> None:
            assert len(self.deliveries) == 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Case("test_it").debug()
