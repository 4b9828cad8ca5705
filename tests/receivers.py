"""Receivers of the tests: at module level, as a worker must find them. What they were called with is in ``calls``."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from deferred_signals import Discard, Retry, current_delivery

calls: list[tuple[str, Any, dict[str, Any]]] = []
#: Exceptions that ``troubled`` raises, one a call.
troubles: list[BaseException] = []
#: Called by ``curious``, with what it has got.
inquiries: list[Callable[..., Any]] = []


def first(sender: Any, **kwargs: Any) -> None:
    calls.append(("first", sender, kwargs))


def second(sender: Any, **kwargs: Any) -> None:
    calls.append(("second", sender, kwargs))


async def asynchronous(sender: Any, **kwargs: Any) -> None:
    calls.append(("asynchronous", sender, kwargs))


def on_instance(sender: Any, instance: Any, **kwargs: Any) -> None:
    calls.append(("on_instance", sender, {"instance": instance, **kwargs}))


def on_item(sender: Any, item: Any, **kwargs: Any) -> None:
    calls.append(("on_item", sender, {"item": item, **kwargs}))


def on_request(sender: Any, request: Any, **kwargs: Any) -> None:
    calls.append(("on_request", sender, {"request": request, **kwargs}))


def on_changes(sender: Any, changes: Any, **kwargs: Any) -> None:
    calls.append(("on_changes", sender, {"changes": changes, **kwargs}))


def troubled(sender: Any, **kwargs: Any) -> None:
    delivery = current_delivery()
    calls.append(("troubled", sender, {"attempt": delivery.attempt if delivery else None}))
    if troubles:
        raise troubles.pop(0)


def curious(sender: Any, **kwargs: Any) -> None:
    calls.append(("curious", sender, kwargs))
    for inquiry in inquiries:
        inquiry(sender=sender, **kwargs)


async def cancelled(sender: Any, **kwargs: Any) -> None:
    raise asyncio.CancelledError


async def cancelled_in_a_group(sender: Any, **kwargs: Any) -> None:
    raise BaseExceptionGroup("tasks", [asyncio.CancelledError()])


async def exits_in_a_group(sender: Any, **kwargs: Any) -> None:
    raise BaseExceptionGroup("tasks", [asyncio.CancelledError(), SystemExit(1)])


def discards(sender: Any, **kwargs: Any) -> None:
    raise Discard("nobody is waiting for it")


def wants_later(sender: Any, **kwargs: Any) -> None:
    raise Retry("not yet", countdown=7)


def without_kwargs(sender: Any) -> None: ...


def never(sender: Any, **kwargs: Any) -> None: ...


def later(sender: Any, **kwargs: Any) -> None: ...


def by_position(sender: Any, /, **kwargs: Any) -> None: ...


def exactly(sender: Any, signal: Any, toppings: Any) -> None:
    calls.append(("exactly", sender, {"toppings": toppings}))


@functools.cache
def cached(sender: Any, **kwargs: Any) -> None:
    calls.append(("cached", sender, kwargs))


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@_decorated
def hidden(sender: Any, **kwargs: Any) -> None: ...


@_decorated
def wrapped(sender: Any, **kwargs: Any) -> None:
    calls.append(("wrapped", sender, kwargs))


def _providing(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, tenant="acme", **kwargs)

    return wrapper


@_providing
def provided(sender: Any, tenant: str, **kwargs: Any) -> None:
    calls.append(("provided", sender, {"tenant": tenant, **kwargs}))


def _filtering(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(sender: Any, **kwargs: Any) -> Any:
        return function(sender)

    return wrapper


@_filtering
def behind_a_filter(sender: Any) -> None:
    calls.append(("behind_a_filter", sender, {}))


@_decorated
async def behind_a_decorator(sender: Any, **kwargs: Any) -> None:
    calls.append(("behind_a_decorator", sender, kwargs))


class Holder:
    @staticmethod
    def static(sender: Any, **kwargs: Any) -> None:
        calls.append(("static", sender, kwargs))

    @classmethod
    def of_class(cls, sender: Any, **kwargs: Any) -> None:
        calls.append((f"of_class {cls.__name__}", sender, kwargs))

    def of_instance(self, sender: Any, **kwargs: Any) -> None:
        calls.append(("of_instance", sender, kwargs))


class Heir(Holder): ...


def some_view(request: Any) -> None: ...
