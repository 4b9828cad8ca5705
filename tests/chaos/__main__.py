"""``python -m tests.chaos``: the ledger test; ``python -m tests.chaos redis-gap``: what Redis loses, and how often."""

import argparse
import os
import signal
import sys
import time
from dataclasses import replace

from tests.servers import Redis

from . import outbox_run
from .gap import measure
from .run import FULL, SHORT, Run, Size
from .scenarios import SCENARIOS, Scenario

#: What can be broken where there is no outbox, and where there is.
BREAKS = ("publish-early", "ack-early")
OUTBOX_BREAKS = ("unfenced", "no-relay")


class Display:
    """Lines that stay, and one that tells the progress: overwritten on a terminal, now and then elsewhere."""

    def __init__(self) -> None:
        self.on_terminal = sys.stderr.isatty()
        self.shown = 0.0

    def say(self, line: str) -> None:
        if self.on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        print(line, flush=True)

    def show(self, line: str) -> None:
        now = time.monotonic()
        if now - self.shown < (0.2 if self.on_terminal else 15):
            return
        self.shown = now
        if self.on_terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(f"  {line}", file=sys.stderr, flush=True)


def gap(arguments: list[str], display: Display) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos redis-gap", description="What Redis loses, exactly.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that each receiver takes")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args(arguments)
    if missing := Redis.missing():
        display.say(f"redis-gap: NOT RUN: {missing}")
        return 1
    lost = measure(given.kills, given.pause, given.seed, display.show)
    display.say(
        f"redis-gap: {Redis.found()[1]}, receivers of {given.pause:g} s: kills={given.kills} lost={sum(lost)} "
        f"most_at_once={max(lost)}"
    )
    if max(lost) > 1:
        display.say("BROKEN: one kill lost more than one message, which is what the ledger test explains by a kill")
    return int(max(lost) > 1)


def _size(scenario: Scenario, given: argparse.Namespace) -> Size:
    if scenario.outbox:
        size = outbox_run.SHORT if given.short else outbox_run.FULL
    else:
        size = SHORT if given.short else FULL
        if given.breaking:
            size = replace(size, outages=())  # a send that does not wait for the commit fails with the broker
    return replace(size, deliveries=given.deliveries) if given.deliveries else size


def main() -> int:
    display = Display()
    # As Ctrl-C: the servers and workers must not outlive the run.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if sys.argv[1:2] == ["redis-gap"]:
        return gap(sys.argv[2:], display)
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--short", action="store_true", help="a few minutes in all, for CI")
    parser.add_argument("--deliveries", type=int, help="at least so many in each scenario")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all that is random")
    parser.add_argument("--require", action="store_true", help="a server that is missing is a failure, not a skip")
    parser.add_argument(
        "--break",
        dest="breaking",
        choices=[*BREAKS, *OUTBOX_BREAKS],
        default="",
        help="break it on purpose, to see that it is told: publish before the commit, acknowledge before the run; with "
        "the outbox: complete whoever has the lease, run no relay",
    )
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(names):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    require = given.require or bool(os.environ.get("DEFERRED_SIGNALS_TEST_REQUIRE_SERVICES"))
    closing, failed = [], False
    for scenario in SCENARIOS:
        if given.scenarios and scenario.name not in given.scenarios:
            continue
        if given.breaking and given.breaking not in (OUTBOX_BREAKS if scenario.outbox else BREAKS):
            continue
        if missing := scenario.missing():
            closing += [f"{scenario.title} {mode}: NOT RUN: {missing}" for mode in scenario.modes]
            failed = failed or require
            continue
        kind = outbox_run.OutboxRun if scenario.outbox else Run
        run = kind(
            scenario, _size(scenario, given), given.seed, breaking=given.breaking, say=display.say, show=display.show
        )
        verdicts = run()
        closing += [verdict.line() for verdict in verdicts]
        failed = failed or any(verdict.broken for verdict in verdicts)
    if not closing:
        parser.error(f"no scenario in which {given.breaking} could be broken")
    display.say("\n".join(["", *closing]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
