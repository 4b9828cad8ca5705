"""Django's background tasks and their results arrive equal, and what the wire names is never run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from types import FunctionType
from typing import Any

import django
import pytest
from django.test import override_settings

from deferred_signals.codec import Decoder, Encoder, base
from deferred_signals.exceptions import DecodeError, EncodeError, UnknownName

from .travel import travel

HERE = __name__
backport: Any = import_module("django_tasks")


@backport.task()
def greet(name: str) -> str:
    return f"Hello {name}"


@backport.task(takes_context=True)
def fail(context: Any, name: str) -> None:
    raise ValueError(name)


def plain(name: str) -> str:
    return name


#: Not the name of its function: that one still is the function.
of_plain = backport.task()(plain)

TASKS = {"django_tasks": (greet, fail)}
# Before Django 6 there is only the package; the codec is the same one.
if django.VERSION >= (6,):
    own: Any = import_module("django.tasks")

    @own.task()
    def welcome(name: str) -> str:
        return f"Welcome {name}"

    @own.task(takes_context=True)
    def collapse(context: Any, name: str) -> None:
        raise ValueError(name)

    TASKS["django.tasks"] = (welcome, collapse)


@pytest.fixture(params=TASKS)
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each library that brings tasks, with a backend that allows everything."""
    name: str = request.param
    with override_settings(TASKS={"default": {"BACKEND": f"{name}.backends.dummy.DummyBackend", "QUEUES": []}}):
        yield name


def test_a_task_arrives_as_the_task_itself_would_be(library: str) -> None:
    for task in TASKS[library]:
        arrived = travel(task)
        assert arrived == task
        assert type(arrived) is type(task)
        assert arrived.func is task.func


def test_what_using_has_changed_of_a_task_arrives_too(library: str) -> None:
    task = TASKS[library][0].using(priority=7, queue_name="mail", run_after=datetime(2030, 1, 1, tzinfo=UTC))
    arrived = travel(task)
    assert arrived == task != TASKS[library][0]
    assert (arrived.priority, arrived.queue_name, arrived.run_after) == (7, "mail", datetime(2030, 1, 1, tzinfo=UTC))


def test_a_task_whose_function_still_has_its_own_name_arrives() -> None:
    assert travel(of_plain) == of_plain


@pytest.mark.parametrize("number", [0, 1], ids=["succeeds", "fails"])
@pytest.mark.parametrize("name", TASKS)
def test_the_result_of_every_signal_arrives_equal_and_of_its_type(name: str, number: int) -> None:
    signals = import_module(f"{name}.signals")
    seen: list[str] = []

    def compare(sender: type, task_result: Any, **kwargs: Any) -> None:
        # Here, for the backend changes the result in place.
        arrived = travel(task_result)
        assert arrived == task_result
        assert type(arrived) is type(task_result)
        assert arrived.task.func is task_result.task.func
        assert type(arrived.status) is type(task_result.status)
        assert travel(sender) is sender
        seen.append(arrived.status.name)
        if arrived.is_finished and not number:
            assert arrived.return_value == task_result.return_value
        assert [error.exception_class for error in arrived.errors] == [ValueError] * len(task_result.errors)

    every = (signals.task_enqueued, signals.task_started, signals.task_finished)
    for signal in every:
        signal.connect(compare)
    try:
        TASKS[name][number].enqueue("Ada")
    finally:
        for signal in every:
            signal.disconnect(compare)
    assert seen == ["READY", "RUNNING", ["SUCCESSFUL", "FAILED"][number]]


def test_a_worker_that_lacks_the_tasks_backend_gets_the_task_all_the_same(library: str) -> None:
    data = Encoder().encode(TASKS[library][0])
    with override_settings(TASKS={"other": {"BACKEND": f"{library}.backends.dummy.DummyBackend"}}):
        assert Decoder().decode(data) == TASKS[library][0]


def test_a_task_of_a_local_function_is_refused_with_a_remedy() -> None:
    made: Any = object.__new__(type(greet))
    for name in ("priority", "backend", "queue_name", "run_after", "takes_context"):
        object.__setattr__(made, name, getattr(greet, name))
    for function in (lambda: 1, lambda name: name):
        object.__setattr__(made, "func", function)
        with pytest.raises(EncodeError, match="must stand at module level"):
            Encoder().encode({"task": made})
    # Under its path stands another one.
    object.__setattr__(made, "func", FunctionType(plain.__code__, {}, "plain"))
    with pytest.raises(EncodeError, match="dotted path"):
        Encoder().encode(made)


def test_a_task_that_a_release_has_removed_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Encoder().encode(greet)
    monkeypatch.delattr(sys.modules[HERE], "greet")
    with pytest.raises(UnknownName, match="A task"):
        Decoder().decode(data)


KIND = "django_tasks.base.Task"
FIELDS = {"priority": 0, "backend": "default", "queue_name": "default", "run_after": None, "takes_context": False}


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        [],
        [KIND, f"{HERE}.greet"],
        [KIND, f"{HERE}.greet", None],
        [KIND, f"{HERE}.greet", []],
        [KIND, f"{HERE}.greet", {**FIELDS, "func": 1}],
        [KIND, f"{HERE}.greet", {**FIELDS, "more": 1}],
        [KIND, f"{HERE}.greet", {**FIELDS, "__class__": 1}],
        [KIND, f"{HERE}.nothing", FIELDS],
        [KIND, f"{HERE}.KIND", FIELDS],
        [KIND, f"{HERE}.backport.task", FIELDS],
        [KIND, "builtins.eval", FIELDS],
        [KIND, "subprocess.Popen", FIELDS],
        [KIND, "antigravity.fly", FIELDS],
        [KIND, 5, FIELDS],
        [KIND, [f"{HERE}.greet"], FIELDS],
        ["builtins.dict", f"{HERE}.greet", FIELDS],
        ["django_tasks.base.TaskResult", f"{HERE}.greet", FIELDS],
        [f"{HERE}.greet", f"{HERE}.greet", FIELDS],
        ["no.Where", f"{HERE}.greet", FIELDS],
        [5, f"{HERE}.greet", FIELDS],
    ],
    ids=lambda value: str(value)[:70],
)
def test_nonsense_is_a_decode_error_and_nothing_runs(data: Any) -> None:
    base.load()
    modules = set(sys.modules)
    with pytest.raises(DecodeError):
        Decoder().decode({"$task": data})
    assert set(sys.modules) == modules


def test_where_nobody_has_tasks_the_payload_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Encoder().encode(greet)
    for name in [name for name in sys.modules if name.partition(".")[0] == "django_tasks" or "django.tasks" in name]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UnknownName):
        Decoder().decode(data)
