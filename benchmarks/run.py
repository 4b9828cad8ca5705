"""``make bench``: measure, print one Markdown table, write ``benchmarks/results.json``. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
# As a script it would find its neighbours as top-level modules; they are a package, and the Django app of this run.
sys.path[0] = str(HERE.parent)
os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"

import django
from celery import Celery

django.setup()

from django.db import connection

import deferred_signals
from benchmarks import delivery, dispatch, encoding, report, servers

#: Seconds for each comparison; the whole run takes a little longer than all of them.
SECONDS, QUICK_SECONDS = 8.5, 1.4


def arguments() -> argparse.Namespace:
    """What stands on the command line."""
    parser = argparse.ArgumentParser(description="What a send and a delivery cost, beside Django and Celery by hand.")
    parser.add_argument("--quick", action="store_true", help="under 20 seconds, with more noise")
    parser.add_argument("--only", metavar="WORD", default="", help="only the comparisons with WORD in their key")
    parser.add_argument("--seconds", type=float, help="for each comparison")
    parser.add_argument("--broker", metavar="URL", help="a broker that may be emptied, instead of a private Redis")
    parser.add_argument("--confirm", action="store_true", help="with RabbitMQ: wait for its confirmation by hand too")
    parser.add_argument("--output", type=Path, default=HERE / "results.json", help="where the JSON goes")
    return parser.parse_args()


def environment(broker: str) -> dict[str, str]:
    """What the numbers depend on."""
    packages = {name: version(name) for name in ("Django", "celery", "kombu", "redis")}
    return {
        "deferred_signals": deferred_signals.__version__,
        platform.python_implementation(): platform.python_version(),
        **packages,
        "broker": broker,
        "database": connection.vendor,
        "machine": f"{platform.system()} {platform.machine()} with {os.cpu_count()} CPUs",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def celery_app(broker: str, *, confirm: bool = False) -> Celery:
    """An app as in Celery's "First steps with Django": how it is configured decides what reading its settings costs."""
    app = Celery("benchmarks")
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.conf["broker_url"] = broker
    if confirm:
        app.conf["broker_transport_options"] = {"confirm_publish": True}
    app.set_default()
    return app


def main() -> None:
    """Run what the command line asks for."""
    given = arguments()
    seconds = given.seconds or (QUICK_SECONDS if given.quick else SECONDS)
    with nullcontext((given.broker, given.broker)) if given.broker else servers.redis() as (url, broker):
        app = celery_app(url, confirm=given.confirm)
        found = environment(broker)
        delivery.create_table()
        try:
            every = [*delivery.comparisons(app), *dispatch.comparisons(), *encoding.comparisons()]
            chosen = [comparison for comparison in every if given.only in comparison.key]
            for comparison in chosen:
                print(f"{comparison.title} ...", file=sys.stderr, flush=True)
                comparison.run(seconds)
        finally:
            delivery.drop_table()
    given.output.write_text(json.dumps(report.as_json(chosen, found), indent=2) + "\n")
    print(report.as_markdown(chosen, found))


if __name__ == "__main__":
    main()
