from django.db import models


class Van(models.Model):
    name = models.CharField(max_length=50)

    class Meta:
        db_table = "releases_van"
