"""Views that send; each answers with what its test wants to know."""

import os

from asgiref.sync import sync_to_async
from django.http import JsonResponse

from ..shop.models import Customer
from . import heartbeat, scenarios, signals


def count(request, number):
    scenarios.count([number])
    return JsonResponse({"pid": os.getpid()})


async def acount(request, number):
    await Customer.objects.abulk_create([Customer(name=f"number {number}")])
    await signals.counted.asend(sender=None, number=number)
    return JsonResponse({"pid": os.getpid()})


async def acount_robust(request, number):
    await Customer.objects.abulk_create([Customer(name=f"number {number}")])
    responses = await signals.counted.asend_robust(sender=None, number=number)
    return JsonResponse({"deliveries": [delivery.id for _, delivery in responses]})


async def acount_in_a_transaction(request, number):
    await sync_to_async(scenarios.count)([number])
    return JsonResponse({"pid": os.getpid()})


async def count_in_the_loop(request, number):
    """What not to do: ``send`` waits, whoever calls it."""
    signals.counted.send(sender=None, number=number)
    return JsonResponse({"pid": os.getpid()})


async def longest_pause(request):
    """The longest time in which the event loop did nothing, since the last time that it was asked."""
    return JsonResponse({"seconds": heartbeat.longest_pause()})
