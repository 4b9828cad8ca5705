"""What the workers have told, against what this process sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from celery import Celery

from ..envelope import VERSION
from ..tasks import deliver
from .findings import Section
from .workers import Worker, Workers

#: Seconds by which two clocks may differ before anything that is judged by them goes wrong.
_CLOCKS = 2.0


def judge(workers: Workers, wanted: Mapping[str, set[str]], app: Celery, here: set[str]) -> Section:
    """What the workers have told, against what this process sends: ``wanted`` are the receivers by queue."""
    section = Section("Workers")
    if not workers.found:
        _silent(section, workers.silence, app)
        return section
    for name in workers.namesakes:
        section.add("warning", f"Several workers are called {name}.", "Give each a name of its own: celery worker -n")
    ours = [worker for worker in workers.found if worker.queues.keys() & wanted.keys()]
    for worker in workers.found:
        if worker not in ours:
            section.add("note", f"{worker.name} consumes none of the queues of deferred receivers.")
            continue
        before = len(section.findings)
        _judge_one(section, worker, {name for queue in worker.queues for name in wanted.get(queue, ())}, ours)
        told = worker.told or {}
        if len(section.findings) == before:
            section.add(
                "ok", f"{worker.name} knows all receivers of its queues (deferred_signals {told.get('version')})."
            )
        if more := sorted(set(told.get("receivers", ())) - here):
            section.add(
                "note",
                f"{worker.name} also knows {', '.join(more)}: another project's, or another release's.",
            )
    return section


def _silent(section: Section, why: str, app: Celery) -> None:
    if not app.conf.worker_enable_remote_control:
        section.add(
            "note",
            "The workers were not asked: remote control is off (worker_enable_remote_control).",
            "Look at the queues below, and at the workers' own logs.",
        )
        return
    section.add(
        "problem",
        f"There is no worker to be seen: {why}.",
        "Start one: celery -A ... worker. If there is one: does it use this broker, is remote control on in its "
        "settings (worker_enable_remote_control), is it a solo worker at work, or too slow for this --timeout?",
    )


def _judge_one(section: Section, worker: Worker, wanted: set[str], ours: list[Worker]) -> None:
    say: Callable[..., None] = section.add
    if not worker.has_task:
        say(
            "problem",
            f"{worker.name} has no task {deliver.name}: it would throw deliveries away.",
            'Put "deferred_signals" into the INSTALLED_APPS of its settings, and restart it.',
        )
        return
    if worker.told is None:
        say(
            "warning",
            f"{worker.name} cannot tell what it knows: it runs an older release of deferred_signals.",
            "Restart it with this release.",
        )
        return
    if wrong := worker.told.get("wrong"):
        say(
            "problem",
            f"{worker.name} can run no delivery, for its settings are wrong: {wrong}",
            "Correct them, and restart it. What it takes waits until then.",
        )
        return
    wire = worker.told["wire"]
    if VERSION not in (wire, wire - 1):
        say(
            "problem",
            f"{worker.name} reads wire version {wire} and the one before; this process writes {VERSION}.",
            "Deploy the workers first, then the senders, one release after another.",
        )
    if worker.told.get("same_key") is False:
        say(
            "problem",
            f"{worker.name} does not accept the signature of this process: every delivery would be dead.",
            "Give both the same SECRET_KEY, or the same DEFERRED_SIGNALS['SIGNING_KEYS'], and restart them.",
        )
    if worker.told.get("can_open") is False:
        say(
            "problem",
            f"{worker.name} cannot decrypt what this process encrypts: those deliveries wait, and then are dead.",
            "Give both the same DEFERRED_SIGNALS['ENCRYPTION_KEYS'], and restart them.",
        )
    for name in sorted(wanted - worker.receivers):
        others = any(name in other.receivers for other in ours)
        say(
            "warning" if others else "problem",
            f"{worker.name} does not know {name}: "
            + ("its deliveries wait until another worker takes them." if others else "no worker can run it."),
            "Restart it with this release. If it has it: is the app in its INSTALLED_APPS, does its ready() import the "
            "module?",
        )
    if abs(worker.ahead) - worker.within > _CLOCKS:
        say(
            "warning",
            f"The clock of {worker.name} is {abs(worker.ahead):.0f} s {'ahead' if worker.ahead > 0 else 'behind'}: "
            "countdown, expires and MAX_AGE are judged by it.",
            "Let both machines set their clocks by NTP.",
        )
