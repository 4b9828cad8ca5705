from django.db import models

from . import release

if release.NEW:

    class Warehouse(models.Model):
        """Release 1 calls it Depot."""

        name = models.CharField(max_length=50)

        class Meta:
            db_table = "releases_depot"

else:

    class Depot(models.Model):
        name = models.CharField(max_length=50)

        class Meta:
            db_table = "releases_depot"

    class Van(models.Model):
        """Release 2 has it in the app ``archive``."""

        name = models.CharField(max_length=50)

        class Meta:
            db_table = "releases_van"


class Voucher(models.Model):
    """Release 2 has added a field."""

    code = models.CharField(max_length=50)
    if release.NEW:
        place = models.CharField(max_length=50, default="everywhere")


class Coupon(models.Model):
    """Release 2 has removed a field."""

    code = models.CharField(max_length=50)
    if not release.NEW:
        remark = models.CharField(max_length=50)
