"""What a send to inline receivers costs, beside Django's own Signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import dispatch
from django.db.models.signals import post_save

import deferred_signals

from .measure import Comparison, Way
from .models import DeferredRow, InlineRow

#: The keyword arguments of a post_save that Model.save() sends.
USUAL: dict[str, Any] = {"created": True, "update_fields": None, "raw": False, "using": "default"}


def inline(sender: Any, instance: Any, **kwargs: Any) -> None:
    """A receiver that does nothing."""


def deferred(sender: Any, instance: Any, **kwargs: Any) -> None:
    """A deferred receiver of another sender."""


def _sends(signal: dispatch.Signal, sender: Any) -> Callable[[int], None]:
    instance = InlineRow(pk=1)

    def work(times: int) -> None:
        for _ in range(times):
            signal.send(sender=sender, instance=instance, **USUAL)

    return work


def _receiver() -> Callable[..., None]:
    def receive(sender: Any, instance: Any, **kwargs: Any) -> None:
        pass

    return receive


def _to_inline(count: int) -> Comparison:
    theirs, ours = dispatch.Signal(), deferred_signals.Signal()
    for _ in range(count):
        receive = _receiver()
        theirs.connect(receive, weak=False)
        ours.connect(receive, weak=False)
    return Comparison(
        f"dispatch_{count}",
        f"send to {count} inline receiver{'s' * (count != 1)}",
        [
            Way("django.dispatch.Signal", _sends(theirs, InlineRow)),
            Way("deferred_signals.Signal", _sends(ours, InlineRow), bar=1.0),
        ],
    )


def _beside_deferred() -> Comparison:
    post_save.connect(inline, sender=InlineRow)
    work = _sends(post_save, InlineRow)

    def alone() -> None:
        deferred_signals.disconnect(post_save, deferred, sender=DeferredRow)

    def beside() -> None:
        deferred_signals.connect(post_save, deferred, sender=DeferredRow, deferred=True)

    return Comparison(
        "dispatch_post_save",
        "send post_save to 1 inline receiver",
        [Way("by itself", work, alone), Way("beside a deferred receiver of another sender", work, beside, bar=1.0)],
    )


def comparisons() -> list[Comparison]:
    """Dispatch to 0, 1 and 5 inline receivers, and Django's own post_save."""
    return [*map(_to_inline, (0, 1, 5)), _beside_deferred()]
