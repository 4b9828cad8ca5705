"""Views with the toolbar around them."""

from __future__ import annotations

import threading
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse

from deferred_signals import Signal
from tests.shop.models import Customer

rung: Any = Signal()

#: Called by the views.
inquiries: list[Any] = []


def page(request: HttpRequest) -> HttpResponse:
    for inquiry in inquiries:
        inquiry()
    return HttpResponse("<html><body>a page</body></html>")


@transaction.atomic
def committed(request: HttpRequest) -> HttpResponse:
    return page(request)


def rolled_back(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        with transaction.atomic():
            page(request)
            transaction.set_rollback(True)
        Customer.objects.create(name="outer")
    return page(request)


async def asynchronous(request: HttpRequest) -> HttpResponse:
    await rung.asend(sender=None, number=1)
    return HttpResponse("<html><body>a page</body></html>")


def in_another_thread(request: HttpRequest) -> HttpResponse:
    thread = threading.Thread(target=lambda: rung.send(sender=None))
    thread.start()
    thread.join()
    return page(request)
