"""The sender's process: reads a scenario and its arguments per line, answers with a line."""

import json
import sys
import traceback

import django

django.setup()

from tests.integration.project.releases import scenarios  # noqa: E402

for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        answer = {"result": getattr(scenarios, name)(**arguments)}
    except Exception:  # noqa: BLE001 - whatever it is, the test must hear of it
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
