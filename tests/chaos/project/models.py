from django.db import models


class Intent(models.Model):
    """What a sender meant to announce. It stands in the transaction of the send, and goes with it."""

    id = models.CharField(primary_key=True, max_length=20)
    kind = models.CharField(max_length=20)


class Effect(models.Model):
    """What a receiver did. The primary key counts in the order of the database."""

    intent = models.CharField(max_length=20)
    receiver = models.CharField(max_length=20)
    delivery = models.CharField(max_length=40)
    attempt = models.IntegerField()
    pid = models.IntegerField()
    # The delivery's id where the receiver is idempotent: the database refuses a second one.
    once = models.CharField(max_length=40, null=True, unique=True)  # noqa: DJ001 - null is not unique
