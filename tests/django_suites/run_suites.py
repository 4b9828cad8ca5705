"""Run Django's ``runtests.py`` with either Signal: ``run_suites.py <django|ours> <runtests.py> <arguments>``.

A process of its own: the replacement must stand before Django's modules make their signals, and not leak.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import django.dispatch
import django.dispatch.dispatcher

DjangoSignal = django.dispatch.Signal


def replace() -> None:
    import deferred_signals

    for module in (django.dispatch, django.dispatch.dispatcher):
        module.Signal = deferred_signals.Signal  # type: ignore[attr-defined]
        module.receiver = deferred_signals.receiver  # type: ignore[attr-defined]


def evidence() -> dict[str, object]:
    """What the run really used, for the test to judge."""
    from django.db.models import signals

    made = {name: found for name, found in vars(signals).items() if isinstance(found, DjangoSignal)}
    return {
        "signals": {name: [qualified(base) for base in type(found).__mro__] for name, found in made.items()},
        "receiver": qualified(django.dispatch.receiver),
    }


def qualified(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"


if __name__ == "__main__":
    whose, runtests, *arguments = sys.argv[1:]
    if whose == "ours":
        replace()
    sys.argv = [runtests, *arguments]
    sys.path[0] = str(Path(runtests).parent)
    try:
        runpy.run_path(runtests, run_name="__main__")
    finally:
        print("EVIDENCE", json.dumps(evidence()))
