"""What a sender's process does with its input: a scenario and its arguments per line, answered with a line."""

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any


def serve(find: Callable[[str], Callable[..., Any]]) -> None:
    """Run what ``find`` finds by the scenario's name, until the input ends."""
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"result": find(name)(**arguments)}
        except BaseException:  # noqa: BLE001 - whatever it is, SystemExit included, the test must hear of it
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
