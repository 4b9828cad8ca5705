from django.db import models


class Booking(models.Model):
    """What an atomic receiver writes: one row for each time that its effect has come to stay."""

    number = models.IntegerField()
