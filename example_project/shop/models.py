from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone


class User(AbstractUser):
    # Not kept: each login would save the user, and so send post_save to everyone who listens.
    last_login = None
    email = models.EmailField(unique=True)


class Profile(models.Model):
    """What the shop knows of a customer; made by an inline receiver."""

    user = models.OneToOneField(User, models.CASCADE)
    newsletter = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"profile of {self.user}"


class Book(models.Model):
    title = models.CharField(max_length=200)
    author = models.CharField(max_length=200)
    copies_sold = models.PositiveIntegerField(default=0, editable=False)

    class Meta:
        ordering = ["title"]

    def __str__(self) -> str:
        return self.title


class Order(models.Model):
    customer = models.ForeignKey(User, models.CASCADE, related_name="orders")
    book = models.ForeignKey(Book, models.PROTECT, related_name="orders")
    placed = models.DateTimeField(default=timezone.now, editable=False)
    shelf = models.CharField(max_length=50, blank=True, help_text="where the warehouse has set it aside")

    class Meta:
        ordering = ["-placed"]

    def __str__(self) -> str:
        return f"{self.book} for {self.customer}"


class Invoice(models.Model):
    """Written once for each order, whatever becomes of the worker that writes it."""

    order = models.ForeignKey(Order, models.CASCADE, related_name="invoices")
    written_by = models.PositiveIntegerField(help_text="process")

    def __str__(self) -> str:
        return f"invoice {self.pk} for {self.order}"


class Webhook(models.Model):
    """Where orders are reported to; one row. The page can break it, to show what becomes of deliveries then."""

    is_broken = models.BooleanField(default=False)

    def __str__(self) -> str:
        return "the publisher's webhook"

    @property
    def url(self) -> str:
        """An address at which each order is taken, or each is answered with an error."""
        return f"{settings.PUBLISHER_URL}/{'broken' if self.is_broken else 'orders'}"


class Activity(models.Model):
    """One line of the journal: what happened when, in which process. See journal.py."""

    class Process(models.TextChoices):
        WEB = "web"
        WORKER = "worker"

    what = models.CharField(max_length=200)
    process = models.CharField(max_length=10, choices=Process)
    pid = models.PositiveIntegerField()
    started = models.DateTimeField(default=timezone.now)
    finished = models.DateTimeField(null=True, blank=True)
    note = models.CharField(max_length=500, blank=True)
    # Of deliveries only.
    delivery = models.CharField(max_length=36, blank=True)
    attempt = models.PositiveSmallIntegerField(null=True, blank=True)
    state = models.CharField(max_length=10, blank=True)

    class Meta:
        ordering = ["-started", "-pk"]
        verbose_name_plural = "activities"

    def __str__(self) -> str:
        return f"{self.what} in {self.process} process {self.pid}"

    @property
    def milliseconds(self) -> int | None:
        """How long it took, None while it runs."""
        return round((self.finished - self.started).total_seconds() * 1000) if self.finished else None
