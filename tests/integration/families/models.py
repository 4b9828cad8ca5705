import uuid

from django.contrib.auth.models import User
from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=50)
    since = models.DateTimeField(auto_now_add=True)
    account = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)


class Product(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=50)
    properties = models.JSONField(default=dict)


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    total = models.DecimalField(max_digits=8, decimal_places=2)
    delivery_time = models.DurationField(null=True)
    products = models.ManyToManyField(Product, related_name="orders")
