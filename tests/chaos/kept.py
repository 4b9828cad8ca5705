"""What the ledger of a run with the outbox says: every row has run, and nothing has that was rolled back.

A delivery is what the intents say that must be: each receiver of each intent that the database has. The journal tells
of runs, the rows of the outbox how they ended, the effects what is left of them. Pure, as ``checker``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .checker import Event, Story, Verdict, told
from .programs import key_of

Pair = tuple[str, str]

#: What a run says that is tried again, as the same attempt, because a database was away.
CUT_OFF = {
    "a database went away",
    "the database did not answer",
    "the connection broke that its transaction was made over",
}


@dataclass
class Ledger:
    """What was written down about one mode.

    ``committed`` maps the intents that the database has to their kinds, ``receivers`` each kind of the mode to who is
    run about it, ``events`` is the journal, ``effects`` what the receivers wrote, ``rows`` is the outbox. ``atomic``
    are the receivers whose effect and completion are one transaction, ``lease`` is in seconds. ``points`` are those at
    which a process must have died, ``unreached`` what was planned and could not be done.
    """

    broker: str
    mode: str
    committed: Mapping[str, str]
    receivers: Mapping[str, list[str]]
    events: Sequence[Event]
    effects: Sequence[Event]
    rows: Sequence[Event]
    atomic: Collection[str] = ()
    lease: float = 3
    points: Collection[str] = ()
    unreached: Collection[str] = ()

    #: The intents of this mode, whether they were committed or not.
    mine: set[str] = field(init=False)

    def __post_init__(self) -> None:
        planned = [event for event in self.events if event["what"] == "planned"]
        self.mine = {event["intent"] for event in planned if event["kind"] in self.receivers}

    @property
    def expected(self) -> set[Pair]:
        """Who was to be run about what."""
        committed = {intent: self.committed[intent] for intent in self.mine & self.committed.keys()}
        return {(intent, receiver) for intent, kind in committed.items() for receiver in self.receivers[kind]}

    def of_mine(self, events: Sequence[Event]) -> list[Event]:
        """Those that are about intents of this mode."""
        return [event for event in events if event.get("intent") in self.mine]


def judge(ledger: Ledger) -> Verdict:
    """Count what the ledger tells, and say which promises it breaks."""
    story = Story(ledger.events)
    verdict = Verdict(ledger.broker, ledger.mode, kills=len(story.kills))
    expected, effects = ledger.expected, ledger.of_mine(ledger.effects)
    verdict.deliveries = len(expected)

    _check_harness(ledger, story, verdict)
    _count_ghosts(ledger, story, effects, verdict)
    _look_at_rows(ledger, expected, verdict)
    lost = expected - {_pair(effect) for effect in effects}
    verdict.lost = len(lost)
    if lost:
        verdict.broken.append(f"{len(lost)} lost, the first is {min(lost)}")
        ids = {_pair(row): row["delivery"] for row in ledger.rows}
        verdict.unexplained += [f"lost {pair}: {told(story.of[ids.get(pair, '')])}" for pair in sorted(lost)]
    _count_duplicates(ledger, story, verdict)
    _count_effects(ledger, effects, verdict)
    verdict.out_of_order = _out_of_order(ledger, effects)
    if verdict.out_of_order and ledger.mode == "ordered":
        verdict.broken.append(f"{verdict.out_of_order} began before an earlier one of their key had ended")
    return verdict


def _pair(event: Event) -> Pair:
    return event["intent"], event["receiver"]


def _check_harness(ledger: Ledger, story: Story, verdict: Verdict) -> None:
    """What was planned and what the database has must tell the same, or the counts mean nothing."""
    whole = {event["block"] for event in ledger.events if event["what"] == "sent"}
    blocks = defaultdict(list)
    for event in story.planned:
        if event["kept"]:
            blocks[event["block"]].append(event["intent"] in ledger.committed)
        elif event["intent"] in ledger.committed:
            verdict.broken.append(f"{event['intent']} was rolled back, and is in the database")
    for block, there in blocks.items():
        # Whether one has committed in which the sender died, or lost the database, only the database knows.
        if not all(there) and (block in whole or any(there)):
            verdict.broken.append(f"of transaction {block} a part is not in the database")
    if not verdict.kills:
        verdict.broken.append("nothing was killed: this proves nothing")
    if missed := set(ledger.points) - {kill.get("point") for kill in story.kills}:
        verdict.broken.append(f"nothing was killed at {', '.join(sorted(missed))}: this proves nothing about it")
    if ledger.unreached:
        verdict.broken.append(f"could not be done: {', '.join(ledger.unreached)}")


def _count_ghosts(ledger: Ledger, story: Story, effects: list[Event], verdict: Verdict) -> None:
    """Ghosts: kept, begun or run for an intent that never was."""
    seen = [event for events in story.of.values() for event in ledger.of_mine(events)]
    seen += [*effects, *ledger.of_mine(ledger.rows)]
    verdict.ghost = len({event["delivery"] for event in seen if event["intent"] not in ledger.committed})
    if verdict.ghost:
        verdict.broken.append(f"{verdict.ghost} deliveries of what was rolled back")


def _look_at_rows(ledger: Ledger, expected: set[Pair], verdict: Verdict) -> None:
    """Each receiver of each intent has one row, and it has succeeded."""
    rows = ledger.of_mine(ledger.rows)
    found = Counter(_pair(row) for row in rows)
    if silent := expected - found.keys():
        verdict.broken.append(f"{len(silent)} deliveries have no row, the first is {min(silent)}")
    if twice := [pair for pair, count in found.items() if count > 1]:
        verdict.broken.append(f"{len(twice)} sends made two rows for a receiver, the first is {min(twice)}")
    unfinished = [row for row in rows if row["state"] != "succeeded"]
    for state, count in Counter(row["state"] for row in unfinished).items():
        first = next(row for row in unfinished if row["state"] == state)
        verdict.broken.append(f"{count} rows are {state}, the first is {_pair(first)}: {first['error']}")


def _count_duplicates(ledger: Ledger, story: Story, verdict: Verdict) -> None:
    """Duplicated: deliveries of which one attempt was begun more than once; promised only after the end of a lease."""
    ended = _Ended(ledger)
    for delivery, events in story.of.items():
        starts = defaultdict(list)
        for event in ledger.of_mine(events):
            if event["what"] == "started":
                starts[event["attempt"]].append(event)
        again = [pair for _, runs in sorted(starts.items()) for pair in pairwise(runs)]
        if not again:
            continue
        reasons = [_why_again(ledger, story, ended, events, first, second) for first, second in again]
        verdict.duplicated += 1
        if "" in reasons:
            verdict.duplicated_why["unexplained"] += 1
            verdict.unexplained.append(f"run again {delivery}: {told(events)}")
        else:
            verdict.duplicated_why[reasons[0]] += 1
    if count := verdict.duplicated_why["unexplained"]:
        verdict.broken.append(f"{count} ran again although their lease was held")


class _Ended:
    """What else ends a lease, or a run before its time: processes that were stopped, the database that went away."""

    def __init__(self, ledger: Ledger) -> None:
        #: By process, when it was stopped.
        self.stopped: dict[int, list[float]] = defaultdict(list)
        self.away: list[tuple[float, float]] = []
        for event in ledger.events:
            if event["what"] == "stopped":
                self.stopped[event["pid"]].append(event["at"])
            elif event["what"] == "database down":
                self.away.append((event["at"], float("inf")))
            elif event["what"] == "database up":
                self.away[-1] = (self.away[-1][0], event["at"])


def _why_again(ledger: Ledger, story: Story, ended: _Ended, events: list[Event], first: Event, second: Event) -> str:
    if any(_ended_by(kill, first, second) for kill in story.kills):
        return "a worker or its child was killed"
    if any(at < second["at"] for run in (first, second) for at in ended.stopped[run["pid"]]):
        return "a process that was stopped woke"
    if any(down < second["at"] and up > first["at"] for down, up in ended.away) or _was_cut_off(ended, events, first):
        return "the database went away"
    if second["at"] - first["at"] >= ledger.lease:
        return "its lease had run out"
    return ""


def _was_cut_off(ended: _Ended, events: list[Event], first: Event) -> bool:
    """Whether a run has ended because its connection had: it may have been cut long before, while nobody used it."""
    return any(
        event["what"] == "finished"
        and (event["attempt"], event["state"]) == (first["attempt"], "retry")
        and event["reason"] in CUT_OFF
        and event["at"] > first["at"]
        and any(down < event["at"] for down, _ in ended.away)
        for event in events
    )


def _ended_by(kill: Event, first: Event, second: Event) -> bool:
    """Whether a kill between two runs took the process of the first one: itself, or its worker as a whole."""
    took = kill["pid"] == first["pid"] or (kill["how"] != "child" and kill["main"] == first["main"])
    return bool(took and kill["at"] > first["at"] and kill["before"] < second["at"])


def _count_effects(ledger: Ledger, effects: list[Event], verdict: Verdict) -> None:
    """Duplicated effects: none of receivers whose effect and completion are one transaction."""
    twice = [pair for pair, count in Counter(_pair(effect) for effect in effects).items() if count > 1]
    verdict.duplicated_effects = len(twice)
    if broken := [pair for pair in twice if pair[1] in ledger.atomic]:
        verdict.broken.append(f"{len(broken)} effects of atomic receivers are there twice, the first is {min(broken)}")


def _out_of_order(ledger: Ledger, effects: list[Event]) -> int:
    """How many deliveries began, or left their effect, after a later one: of the sender; in order, of their key."""
    starts = [event for event in ledger.of_mine(ledger.events) if event["what"] == "started"]
    late: set[Pair] = set()
    for seen in (starts, effects if ledger.mode == "ordered" else []):
        begun: set[Pair] = set()
        furthest: dict[str, int] = {}
        for event in seen:
            pair = _pair(event)
            if pair in begun:
                continue
            begun.add(pair)
            intent, receiver = pair
            sender, _, number = intent.partition("-")
            line = f"{receiver} {key_of(intent)}" if ledger.mode == "ordered" else sender
            if int(number) < furthest.get(line, 0):
                late.add(pair)
            furthest[line] = max(furthest.get(line, 0), int(number))
    return len(late)
