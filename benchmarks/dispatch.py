"""What a send to inline receivers costs, beside Django's own Signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django import dispatch
from django.db.models.signals import post_save

import deferred_signals

from .measure import Comparison, Way
from .models import DeferredRow, InlineRow

#: The keyword arguments of a post_save that Model.save() sends.
USUAL: dict[str, Any] = {"created": True, "update_fields": None, "raw": False, "using": "default"}

#: Better than any number: what is called is the very function that Django has.
SAME = deferred_signals.Signal.send is dispatch.Signal.send
#: No dearer than Django, give or take the noise of such short work.
AS_DJANGO: dict[str, Any] = {"kind": "ours", "bar": 1.0, "slack": 0.02, "surpassed": SAME}


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


def to_inline(count: int) -> Comparison:
    """Send to so many."""
    theirs, ours = dispatch.Signal(), deferred_signals.Signal()
    for _ in range(count):
        receive = _receiver()
        theirs.connect(receive, weak=False)
        ours.connect(receive, weak=False)
    return Comparison(
        f"dispatch_{count}",
        f"send to {count} inline receiver{'s' * (count != 1)}{', by the same function' * SAME}",
        [
            Way("django.dispatch.Signal", _sends(theirs, InlineRow)),
            Way("deferred_signals.Signal", _sends(ours, InlineRow), **AS_DJANGO),
        ],
    )


def _beside_deferred() -> Comparison:
    work = _sends(post_save, InlineRow)

    def alone() -> None:
        deferred_signals.disconnect(post_save, deferred, sender=DeferredRow)

    def beside() -> None:
        deferred_signals.connect(post_save, deferred, sender=DeferredRow, deferred=True)

    @contextmanager
    def connected() -> Iterator[None]:
        post_save.connect(inline, sender=InlineRow)
        yield
        alone()  # that sender has other receivers in the other parts
        post_save.disconnect(inline, sender=InlineRow)

    return Comparison(
        "dispatch_post_save",
        "send post_save to 1 inline receiver",
        [Way("by itself", work, alone), Way("beside a deferred receiver of another sender", work, beside, **AS_DJANGO)],
        stage=connected,
    )


def comparisons() -> list[Comparison]:
    """Dispatch to 0, 1 and 5 inline receivers, and Django's own post_save."""
    return [*map(to_inline, (0, 1, 5)), _beside_deferred()]
