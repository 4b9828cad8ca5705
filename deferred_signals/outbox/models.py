"""The tables of the outbox."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage
from django.db import models


class State(models.TextChoices):
    """What becomes of a row. The last three are ends; ``due`` and ``ring_at`` are NULL there."""

    PENDING = "pending", "pending"
    RUNNING = "running", "running"
    SUCCEEDED = "succeeded", "succeeded"
    DISCARDED = "discarded", "discarded"
    DEAD = "dead", "dead"


class Origin(models.TextChoices):
    """Why a delivery is here."""

    DURABLE = "durable", "durable"
    SPILLED = "spilled", "could not be published"
    BURIED = "buried", "died outside the outbox"


class OutboxDelivery(models.Model):
    """One delivery: written in the sender's transaction, and there until it is finished.

    All times are of the database's clock. A row may be claimed when ``due`` has passed: of a pending one that is the
    time from which on it may run, of a running one the end of its lease. Each claim counts ``lease`` up, and what a run
    writes about its end it writes only ``WHERE lease`` is still its own.
    """

    number = models.BigAutoField(primary_key=True)
    delivery_id = models.UUIDField(unique=True)
    origin = models.CharField(max_length=10, choices=Origin.choices, default=Origin.DURABLE)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    receiver = models.CharField(max_length=255)
    signal = models.CharField(max_length=255, default="", blank=True)
    payload = models.TextField(help_text="The signed string that would travel to the broker.")
    created = models.DateTimeField()
    due = models.DateTimeField(
        null=True, help_text="From when it may be claimed; of a running one, when its lease ends."
    )
    ring_at = models.DateTimeField(null=True, db_index=True, help_text="When the relay rings for it next.")
    rings = models.PositiveSmallIntegerField(default=0, help_text="How often the relay has rung since it became due.")
    lease = models.BigIntegerField(default=0, help_text="The number of the last claim.")
    worker = models.CharField(
        max_length=255,
        default="",
        blank=True,
        help_text="Who has or had it: pid@host, with a mark that tells containers apart.",
    )
    loss = models.CharField(max_length=100, default="", blank=True, help_text="How that worker was lost, if known.")
    attempt = models.PositiveIntegerField(default=1)
    crashes = models.PositiveIntegerField(default=0, help_text="Workers in a row that did not finish it.")
    order_key = models.CharField(max_length=255, null=True)  # noqa: DJ001 - no key is equal to no other
    unique_key = models.CharField(max_length=255, null=True)  # noqa: DJ001 - as above
    finished = models.DateTimeField(null=True, db_index=True)
    error_type = models.CharField(max_length=255, default="", blank=True)
    error = models.TextField(default="", blank=True)
    traceback = models.TextField(default="", blank=True)

    class Meta:
        db_table = "deferred_signals_delivery"
        verbose_name = "delivery"
        verbose_name_plural = "deliveries"
        # The admin neither adds nor changes rows; what it does has permissions of its own.
        default_permissions = ("view",)
        permissions = (("redeliver", "Can redeliver dead deliveries"), ("discard", "Can discard deliveries"))
        indexes = (
            # Which of a key wait or run, and in which order, however many of it are finished.
            models.Index(fields=["order_key", "state", "number"], name="deferred_signals_order"),
            models.Index(fields=["unique_key", "state", "number"], name="deferred_signals_unique"),
            # Few of many, and people wait for what asks for them.
            models.Index(fields=["receiver"], condition=models.Q(state="dead"), name="deferred_signals_dead"),
        )

    def __str__(self) -> str:
        return f"{self.delivery_id} to {self.receiver} ({self.state})"

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        """Without the warning that MySQL and MariaDB have no partial indexes: theirs is of all rows, and as right."""
        return [message for message in super().check(**kwargs) if message.id != "models.W037"]


class Failing(models.TextChoices):
    """How an attempt ended that did not succeed and was not discarded."""

    RETRY = "retry", "retry"
    DEAD = "dead", "dead"
    LOST = "lost", "worker lost"


class Attempt(models.Model):
    """An attempt of a row that failed; see ``attempts``. One that succeeds at once leaves nothing here."""

    number = models.BigAutoField(primary_key=True)
    # Without a constraint: the database would look here for each row that is pruned.
    row = models.ForeignKey(OutboxDelivery, models.CASCADE, db_constraint=False, related_name="attempts")
    lease = models.BigIntegerField(help_text="The number of its claim.")
    attempt = models.PositiveIntegerField()
    outcome = models.CharField(max_length=10, choices=Failing.choices)
    started = models.DateTimeField(null=True, help_text="When it was claimed; unknown of a worker that was lost.")
    ended = models.DateTimeField(help_text="When that was written; of a lost worker, when another one noticed.")
    worker = models.CharField(max_length=255, default="", blank=True)
    error_type = models.CharField(max_length=255, default="", blank=True)
    error = models.TextField(default="", blank=True)

    class Meta:
        db_table = "deferred_signals_attempt"
        default_permissions = ()

    def __str__(self) -> str:
        return f"attempt {self.attempt} of #{self.row_id} ({self.outcome})"


class Lock(models.Model):
    """A lock that processes take by updating its row: whoever is the relay, and who claims rows of one key."""

    name = models.CharField(max_length=64, primary_key=True)
    holder = models.CharField(max_length=255, default="", blank=True)
    until = models.DateTimeField(null=True)
    turns = models.BigIntegerField(default=0)

    class Meta:
        db_table = "deferred_signals_lock"

    def __str__(self) -> str:
        return self.name
