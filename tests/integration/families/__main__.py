"""The sender's process: reads a scenario (``module.function``) per line, answers with a line."""

import json
import sys
import traceback
from importlib import import_module

import django

django.setup()

from tests.integration.families.celery import app  # noqa: E402

app.set_default()

for line in sys.stdin:
    name, arguments = json.loads(line)
    module, _, function = name.rpartition(".")
    try:
        scenarios = import_module(f"tests.integration.families.scenarios.{module}")
        answer = {"result": getattr(scenarios, function)(**arguments)}
    except BaseException:  # noqa: BLE001 - whatever it is, SystemExit included, the test must hear of it
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
