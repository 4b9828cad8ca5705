from django.db import models


class Entry(models.Model):
    text = models.CharField(max_length=50)


class Receipt(models.Model):
    text = models.CharField(max_length=50)
