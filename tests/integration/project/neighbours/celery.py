"""The second Celery app of this process: the shop's own came first, so this one must say that it is the default."""

from celery import Celery, Task

from ..journal import note


class NotedTask(Task):
    """A project's own task class: whoever overrides these counts on them, for our task too."""

    def apply_async(self, args=None, kwargs=None, **options):
        note("apply_async", task=self.name, shadow=options.get("shadow"))
        return super().apply_async(args, kwargs, **options)

    def before_start(self, task_id, args, kwargs):
        note("before_start", task=self.name, id=task_id)

    def __call__(self, *args, **kwargs):
        note("called", task=self.name, id=self.request.id)
        return super().__call__(*args, **kwargs)

    def on_success(self, retval, task_id, args, kwargs):
        note("on_success", task=self.name, id=task_id)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note("on_retry", task=self.name, id=task_id)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note("on_failure", task=self.name, id=task_id)


app = Celery("neighbours", task_cls=NotedTask)
app.set_default()
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
