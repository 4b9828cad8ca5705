"""Tasks of Django's own framework, which Django 6 brings."""

from typing import Any

import django

#: What the tasks were made of, by name.
FUNCTIONS: dict[str, Any] = {}

if django.VERSION >= (6,):
    from django.tasks import task

    @task(priority=3, queue_name="default")
    def add(first, second):
        return {"sum": first + second}

    @task(takes_context=True)
    def fail(context):
        raise ValueError(f"attempt {context.attempt} failed")

    FUNCTIONS = {made.name: made.func for made in (add, fail)}
