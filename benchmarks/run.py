"""``make bench``: measure, print one Markdown table, write ``benchmarks/results.json``. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
# As a script it would find its neighbours as top-level modules; they are a package, and the Django app of this run.
sys.path[0] = str(HERE.parent)
os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"

import django

django.setup()

from django.db import connection

import deferred_signals
from benchmarks import arriving, delivery, dispatch, durable, encoding, memory, outbox, peers, report, scaling, working
from benchmarks.measure import Comparison, NotMeasured
from benchmarks.stage import Stage

#: Seconds for each comparison; the whole run takes longer, for some need a number of rounds.
SECONDS, QUICK_SECONDS = 5.0, 1.4

#: In the order in which they are measured; the last one fills a table with a million rows, which takes a minute.
PARTS: dict[str, Callable[[Stage], list[Comparison]]] = {
    "dispatch": lambda stage: dispatch.comparisons(),
    "encoding": lambda stage: encoding.comparisons(),
    "delivery": delivery.comparisons,
    "rabbitmq": delivery.on_rabbitmq,
    "scaling": scaling.comparisons,
    "durable": durable.comparisons,
    "memory": memory.comparisons,
    "worker": working.comparisons,
    "arriving": arriving.comparisons,
    "relay": outbox.relay_comparisons,
    "table": outbox.table_comparisons,
}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What stands on the command line."""
    parser = argparse.ArgumentParser(description="What a send and a delivery cost, beside Django and others by hand.")
    parser.add_argument("--quick", action="store_true", help="shorter, with more noise, without what takes minutes")
    parser.add_argument("--full", action="store_true", help="also the transaction of a million deliveries")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be repeated")
    parser.add_argument("--only", metavar="WORD", default="", help="only the comparisons with WORD in their key")
    parser.add_argument("--seconds", type=float, help="for each comparison")
    parser.add_argument("--list", action="store_true", help="only the keys of the comparisons")
    parser.add_argument("--output", type=Path, default=HERE / "results.json", help="where the JSON goes")
    return parser.parse_args(given)


def environment() -> dict[str, str]:
    """What the numbers depend on."""
    packages = {}
    for name in ("Django", "celery", "kombu", "redis", "amqp", *peers.PEERS):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "deferred_signals": deferred_signals.__version__,
        platform.python_implementation(): platform.python_version(),
        **packages,
        "database": connection.vendor,
        "machine": f"{platform.system()} {platform.machine()} with {os.cpu_count()} CPUs",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def chosen(given: argparse.Namespace, stage: Stage) -> Iterator[Comparison]:
    """The comparisons that were asked for."""
    for part, comparisons in PARTS.items():
        if part in (given.part or PARTS):
            yield from (comparison for comparison in comparisons(stage) if given.only in comparison.key)


class Run:
    """What was measured so far, what could not be, and what went wrong."""

    def __init__(self, given: argparse.Namespace, stage: Stage) -> None:
        self.given, self.stage = given, stage
        self.environment = environment()
        self.measured: list[Comparison] = []
        self.missing, self.failed = peers.missing(), dict[str, str]()

    def measure(self) -> None:
        """Measure all that was asked for; the file is up to date after each, for a run may be ended by others."""
        for comparison in chosen(self.given, self.stage):
            if not self._is_asked_for(comparison):
                self.missing[comparison.key] = "only with --full" if comparison.level == 2 else "not with --quick"
                continue
            print(f"{comparison.title} ...", file=sys.stderr, flush=True)
            try:
                comparison.run(self.given.seconds or (QUICK_SECONDS if self.given.quick else SECONDS))
            except NotMeasured as why:
                self.missing[comparison.key] = str(why)
            except KeyboardInterrupt:
                self.failed[comparison.key] = "interrupted, and the rest is not measured"
                break
            except Exception as error:  # noqa: BLE001 - the others are told all the same
                traceback.print_exc()
                self.failed[comparison.key] = f"{type(error).__name__}: {error}"
            else:
                self.measured.append(comparison)
            self.missing |= comparison.missing
            self.save()

    def _is_asked_for(self, comparison: Comparison) -> bool:
        if comparison.level == 1:
            return bool(self.given.only) or not self.given.quick
        return comparison.level == 0 or bool(self.given.full)

    @property
    def facts(self) -> list[str]:
        """What stands below the table."""
        return [
            *(f"FAILED: {what}: {why}" for what, why in self.failed.items()),
            *(f"NOT MEASURED: {what}: {why.rstrip('.')}." for what, why in self.missing.items()),
            *(line for comparison in self.measured for line in comparison.told),
        ]

    def save(self) -> None:
        """Write it down."""
        made = report.as_json(self.measured, self.environment | self.stage.versions)
        made["facts"] = self.facts
        self.given.output.write_text(json.dumps(made, indent=2) + "\n")


def main() -> int:
    """Run what the command line asks for; 1 when something could not be measured that should have been."""
    given = arguments()
    with Stage(quick=given.quick) as stage:
        if given.list:
            print(*(comparison.key for comparison in chosen(given, stage)), sep="\n")
            return 0
        run = Run(given, stage)
        run.measure()
        run.save()
        print(report.as_markdown(run.measured, run.environment | stage.versions))
        print("", *run.facts, sep="\n")
        return int(bool(run.failed))


if __name__ == "__main__":
    sys.exit(main())
