"""Fill the queue with deliveries that touch no database: ``... <how many> <seconds that each takes>``."""

import sys

import django

django.setup()

from tests.chaos.project.receivers import ticked  # noqa: E402

for number in range(int(sys.argv[1])):
    ticked.send(sender=None, tick=f"i0-{number}", pause=float(sys.argv[2]))
