"""System checks: what can be known to be wrong before a delivery is lost over it. The ids are in docs/checks.md."""

from .celery import check_celery
from .connections import check_encryption, check_receivers, check_settings
from .deployment import check_deployment, check_server
from .durable import check_durable
from .senders import check_senders
from .signals import check_signals

__all__ = [
    "check_celery",
    "check_deployment",
    "check_durable",
    "check_encryption",
    "check_receivers",
    "check_senders",
    "check_server",
    "check_settings",
    "check_signals",
]
