"""Models of every shape that a signal may carry."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=50)
    email = models.EmailField(blank=True)


class Order(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    total = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    placed = models.DateTimeField(null=True)


class GiftOrder(Order):
    greeting = models.TextField()


class Regular(Customer):
    class Meta:
        proxy = True


class Visible(models.Manager["Article"]):
    def get_queryset(self) -> models.QuerySet[Article]:
        return super().get_queryset().filter(hidden=False)


class Article(models.Model):
    title = models.CharField(max_length=50, primary_key=True)
    hidden = models.BooleanField(default=False)
    stock = models.IntegerField(default=0)
    picture = models.FileField(null=True)
    tags = models.JSONField(default=dict)
    buyers = models.ManyToManyField(Customer)

    objects: ClassVar[Visible] = Visible()


class Line(models.Model):
    pk = models.CompositePrimaryKey("order_id", "number")
    order_id = models.UUIDField()
    number = models.IntegerField()
    text = models.CharField(max_length=50)
