from django.contrib.auth.models import User
from django.db import models
from django_fsm import FSMField, transition
from djmoney.models.fields import MoneyField
from easy_thumbnails.fields import ThumbnailerImageField
from simple_history.models import HistoricalRecords


class Label(models.Model):
    name = models.CharField(max_length=20)


class Article(models.Model):
    title = models.CharField(max_length=50)
    author = models.ForeignKey(User, on_delete=models.CASCADE)
    cover = ThumbnailerImageField(upload_to="covers", blank=True)
    fee = MoneyField(max_digits=8, decimal_places=2, default=0, default_currency="EUR")
    labels = models.ManyToManyField(Label)
    state = FSMField(default="draft")
    history = HistoricalRecords(m2m_fields=[labels])

    @transition(field=state, source="draft", target="published")
    def publish(self, by, *, note=""):
        """Who may publish is no question of this magazine."""

    @transition(field=state, source="published", target="retracted", on_error="disputed")
    def retract(self):
        raise ValueError("it is true")
