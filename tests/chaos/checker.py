"""What a ledger says: lost, ghosts, doubles, order. Pure: a ledger in, a verdict out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Event = Mapping[str, Any]


@dataclass
class Ledger:
    """What was written down in one run.

    ``committed`` maps the intents that the database has to their kinds, ``receivers`` each kind to who is run about
    it, ``events`` is the journal, ``effects`` the rows that the receivers wrote, ``left`` counts the messages in the
    broker after the drain. ``workers`` is how many there were at a time. With Redis, ``popped`` are the deliveries that
    its own log tells to have been popped and never noted (``aof``), and ``visibility_timeout`` is in seconds.
    """

    broker: str
    committed: Mapping[str, str]
    receivers: Mapping[str, list[str]]
    events: Sequence[Event]
    effects: Sequence[Event]
    left: int = 0
    workers: int = 2
    popped: AbstractSet[str] = frozenset()
    visibility_timeout: float | None = None

    @property
    def on_redis(self) -> bool:
        return self.broker.startswith("redis")


@dataclass
class Verdict:
    """The counts of the closing line; the rest is what the lines before it say."""

    broker: str
    mode: str = "default"
    deliveries: int = 0
    kills: int = 0
    lost: int = 0
    ghost: int = 0
    duplicated: int = 0
    duplicated_effects: int = 0
    out_of_order: int = 0
    unpublished: int = 0
    #: Of what was not confirmed, how much was run all the same.
    unpublished_but_run: int = 0
    lost_why: Counter[str] = field(default_factory=Counter)
    duplicated_why: Counter[str] = field(default_factory=Counter)
    #: The promises that were broken, in words.
    broken: list[str] = field(default_factory=list)
    #: What was lost or run twice for no reason known: the deliveries.
    unexplained: list[str] = field(default_factory=list)

    def line(self) -> str:
        names = ("deliveries", "kills", "lost", "ghost", "duplicated", "duplicated_effects", "out_of_order")
        return f"{self.broker} {self.mode}: " + " ".join(f"{name}={getattr(self, name)}" for name in names)


class Story:
    """The events of each delivery, and what was done to the processes."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.of: dict[str, list[Event]] = defaultdict(list)
        #: SIGKILLs: ``how`` is group, main or child, ``main`` the main process of the worker whose it was (of others
        #: than workers, their own). The process has died between ``before`` and ``at``.
        self.kills: list[Event] = []
        #: From when to when the broker was away.
        self.outages: list[tuple[float, float]] = []
        self.planned: list[Event] = []
        for event in events:
            if event["what"] == "killed":
                self.kills.append(event)
            elif event["what"] == "broker down":
                self.outages.append((event["at"], float("inf")))
            elif event["what"] == "broker up":
                self.outages[-1] = (self.outages[-1][0], event["at"])
            elif event["what"] == "planned":
                self.planned.append(event)
            elif event.get("delivery"):
                self.of[event["delivery"]].append(event)

    def those(self, what: str) -> dict[str, Event]:
        """By delivery, the first event that says ``what``."""
        found = {}
        for delivery, events in self.of.items():
            for event in events:
                if event["what"] == what:
                    found[delivery] = event
                    break
        return found

    def last_seen(self, delivery: str) -> float:
        """Up to when the message was certainly not lost yet.

        The sender tells that it is published when the whole flush is through. By then a worker may have popped it, and
        died; so for that the time counts at which it was planned.
        """
        planned = {event["intent"]: float(event["at"]) for event in self.planned}
        return max(
            planned.get(event["intent"], 0.0) if event["what"] == "published" else float(event["at"])
            for event in self.of[delivery]
        )

    def was_killed(self, main: int, since: float, until: float = float("inf")) -> bool:
        """Whether this worker or one of its children was killed in that time."""
        return any(kill["main"] == main and since < kill["at"] and kill["before"] < until for kill in self.kills)

    def broker_was_away(self, since: float, until: float) -> bool:
        """Whether it was away at any moment of that time: a worker reads on what it had got before the fall."""
        return any(down < until and up > since for down, up in self.outages)


def judge(ledger: Ledger) -> Verdict:
    """Count what the ledger tells, and say which promises it breaks."""
    story = Story(ledger.events)
    verdict = Verdict(ledger.broker, kills=len(story.kills))
    published, unpublished = story.those("published"), story.those("unpublished")
    effects = Counter(effect["delivery"] for effect in ledger.effects)
    verdict.unpublished = len(unpublished)
    verdict.unpublished_but_run = sum(delivery in effects for delivery in unpublished)

    _check_harness(ledger, story, verdict)
    _count_ghosts(ledger, story, verdict)
    _count_silent(ledger, [*published.values(), *unpublished.values()], verdict)
    confirmed = {delivery for delivery, event in published.items() if event["intent"] in ledger.committed}
    verdict.deliveries = len(confirmed)
    _count_lost(ledger, story, sorted(confirmed - effects.keys()), verdict)
    _count_duplicates(ledger, story, verdict)
    verdict.duplicated_effects = sum(count > 1 for count in effects.values())
    verdict.out_of_order = _out_of_order(ledger.events)
    if ledger.left:
        verdict.broken.append(f"{ledger.left} messages were left in the broker: it was not drained")
    return verdict


def _check_harness(ledger: Ledger, story: Story, verdict: Verdict) -> None:
    """The senders' plans and the database must tell the same, or the counts mean nothing."""
    wrong = [event["intent"] for event in story.planned if event["kept"] != (event["intent"] in ledger.committed)]
    if wrong:
        verdict.broken.append(f"of {len(wrong)} intents plan and database disagree, the first is {wrong[0]}")
    if not verdict.kills:
        verdict.broken.append("nothing was killed: this proves nothing")


def _count_ghosts(ledger: Ledger, story: Story, verdict: Verdict) -> None:
    """Ghosts: published, begun or run for an intent that never was."""
    seen = [event for events in story.of.values() for event in events if "intent" in event] + list(ledger.effects)
    verdict.ghost = len({event["delivery"] for event in seen if event["intent"] not in ledger.committed})
    if verdict.ghost:
        verdict.broken.append(f"{verdict.ghost} deliveries of what was rolled back")


def _count_silent(ledger: Ledger, announced: list[Event], verdict: Verdict) -> None:
    """Each receiver of each intent that committed was said to be published or unpublished, once."""
    told = Counter((event["intent"], event["receiver"]) for event in announced)
    expected = {(intent, receiver) for intent, kind in ledger.committed.items() for receiver in ledger.receivers[kind]}
    if silent := expected - told.keys():
        verdict.broken.append(f"{len(silent)} deliveries vanished in the sender, the first is {min(silent)}")
    if twice := [pair for pair, count in told.items() if count > 1]:
        verdict.broken.append(f"{len(twice)} sends made two deliveries to a receiver, the first is {twice[0]}")


def _count_lost(ledger: Ledger, story: Story, lost: list[str], verdict: Verdict) -> None:
    """Lost: confirmed by the broker, committed, and without an effect."""
    verdict.lost = len(lost)
    if not ledger.on_redis:
        if lost:
            verdict.broken.append(f"{len(lost)} lost")
            verdict.unexplained += [f"lost {delivery}: {told(story.of[delivery])}" for delivery in lost]
        return
    # Those that were there last come first: each needs a death after that, and one death explains only so many.
    explained = 0
    last_seen = {delivery: story.last_seen(delivery) for delivery in lost}
    for delivery in sorted(lost, key=lambda delivery: -last_seen[delivery]):
        events = story.of[delivery]
        if delivery in ledger.popped and _can_be_lost(ledger, story, last_seen[delivery]) > explained:
            explained += 1
            verdict.lost_why["popped, and never noted as unacknowledged, by Redis' own log"] += 1
        else:
            verdict.lost_why["unexplained"] += 1
            verdict.unexplained.append(f"lost {delivery}: {told(events)}")
    if verdict.lost_why["unexplained"]:
        verdict.broken.append(f"{verdict.lost_why['unexplained']} lost that no worker's death explains")


def _can_be_lost(ledger: Ledger, story: Story, since: float) -> int:
    """How many messages Redis and its clients can have lost since then between pop and unacked.

    A worker has one BRPOP at a time, which pops one message: so its death loses one at most. When the server dies, one
    reply to each worker may be on its way.
    """
    mains = len([kill for kill in story.kills if kill["how"] != "child" and kill["at"] > since])
    return mains + sum(up > since for _, up in story.outages) * ledger.workers


def _count_duplicates(ledger: Ledger, story: Story, verdict: Verdict) -> None:
    """Duplicated: deliveries of which one attempt was begun more than once. A retry is another attempt."""
    for delivery, events in story.of.items():
        starts = defaultdict(list)
        for event in events:
            if event["what"] == "started":
                starts[event["attempt"]].append(event)
        if all(len(runs) == 1 for runs in starts.values()):
            continue
        verdict.duplicated += 1
        why = ""
        for _, runs in sorted(starts.items()):
            for _, again in pairwise(runs):
                # What was doubled in one attempt is doubled in the next ones.
                why = why or _why_again(ledger, story, events, again["at"])
        verdict.duplicated_why[why or "unexplained"] += 1
        if not why:
            verdict.unexplained.append(f"run again {delivery}: {told(events)}")


def _why_again(ledger: Ledger, story: Story, events: list[Event], again: float) -> str:
    received = [event for event in events if event["what"] == "received" and event["at"] < again]
    for event in received:
        if story.was_killed(event["main"], event["at"], again):
            return "a worker or its child was killed"
        if story.broker_was_away(event["at"], again):
            return "the broker fell before the acknowledgement"
    for event in events:
        if event["what"] in {"published", "unpublished"} and any(
            down < event["at"] and event["at"] - up < 10 for down, up in story.outages
        ):
            return "sent once more when the broker fell before its answer"
    if ledger.visibility_timeout and any(again - event["at"] > ledger.visibility_timeout for event in received):
        return "the visibility timeout passed"
    return ""


def told(events: list[Event]) -> str:
    return ", ".join(
        " ".join(str(event[name]) for name in ("what", "attempt", "state", "reason", "main", "pid") if event.get(name))
        + f" at {event['at']:.2f}"
        for event in events
    )


def _out_of_order(events: Iterable[Event]) -> int:
    """How many deliveries began after one that the same sender had published later."""
    numbers: dict[str, tuple[str, int]] = {}
    furthest: Counter[str] = Counter()
    begun: set[str] = set()
    late = 0
    published: Counter[str] = Counter()
    starts = []
    for event in events:
        if event["what"] == "published":
            published[event["sender"]] += 1
            numbers[event["delivery"]] = event["sender"], published[event["sender"]]
        elif event["what"] == "started" and event["delivery"] not in begun:
            begun.add(event["delivery"])
            starts.append(event["delivery"])
    for delivery in starts:
        if delivery not in numbers:
            continue  # not confirmed, and run all the same
        sender, number = numbers[delivery]
        late += number < furthest[sender]
        furthest[sender] = max(furthest[sender], number)
    return late
