import os

from kombu import Exchange, Queue

from ..settings import *  # noqa: F403
from ..settings import CELERY_TASK_DEFAULT_QUEUE as QUEUE
from ..settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.integration.project.faults"]
DEFERRED_SIGNALS = {
    "PUBLISH_TIMEOUT": float(os.environ.get("FAULTS_PUBLISH_TIMEOUT", "1")),
    "MAX_SIZE": int(os.environ.get("FAULTS_MAX_SIZE", str(256 * 1024))),
}
CELERY_TASK_QUEUES = [
    Queue(QUEUE, queue_arguments={"x-queue-type": os.environ.get("FAULTS_QUEUE_TYPE", "classic")}),
    Queue(f"{QUEUE}-topic", Exchange(f"{QUEUE}-topic", type="topic"), routing_key="parcels.#"),
    Queue(f"{QUEUE}-full", queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"}),
]
