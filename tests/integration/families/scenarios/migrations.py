"""What ``manage.py migrate`` and ``flush`` send."""

from io import StringIO

from django.core.management import call_command

from ..recording import recording


def migrate():
    with recording("pre_migrate", "post_migrate") as found:
        call_command("migrate", "families", "zero", verbosity=0)
        call_command("migrate", interactive=False, stdout=StringIO())
        call_command("flush", interactive=False, verbosity=0)
    return found.answer() | {
        "apps": sorted({arguments["app_config"].label for _, arguments in found.live}),
        "plans": [[step[1] for step in arguments["plan"]] for _, arguments in found.live if "plan" in arguments],
        "without a plan": sum("plan" not in arguments for _, arguments in found.live),
    }
