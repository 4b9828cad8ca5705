"""Models of every shape that a signal may carry."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.postgres.fields import ArrayField, DateRangeField
from django.db import models
from django.db.models.query_utils import DeferredAttribute


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


class LuxuryOrder(GiftOrder):
    ribbon = models.CharField(max_length=10)


class Wrapping(models.Model):
    wrapping_id = models.BigAutoField(primary_key=True)
    colour = models.CharField(max_length=10)


class WrappedOrder(Order, Wrapping):  # type: ignore[misc]  # of two types of key, Django takes the first
    """Its row has two parents, and only the link to one of them is its key."""


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


class Code:
    """A value of a field's own type, as hashids, ULIDs and money are."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return f"code {self.text}"

    def __repr__(self) -> str:
        return f"Code({self.text!r})"


if TYPE_CHECKING:
    AnyField = models.Field[Any, Any]
else:
    AnyField = models.CharField


class CodeField(AnyField):
    """Its values are Codes; only ``value_to_string`` says them in a way that ``to_python`` reads."""

    def to_python(self, value: Any) -> Any:
        return value if value is None or isinstance(value, Code) else Code(str(value))

    def from_db_value(self, value: Any, expression: object, connection: object) -> Any:
        return self.to_python(value)

    def get_prep_value(self, value: Any) -> Any:
        return value.text if isinstance(value, Code) else value

    def value_to_string(self, obj: models.Model) -> Any:
        return self.value_from_object(obj).text


class SealedField(CodeField):
    """Its values have no text form, and what is in the database leads back to none."""

    def value_to_string(self, obj: models.Model) -> Any:
        raise NotImplementedError("sealed")

    def get_prep_value(self, value: Any) -> Any:
        return value if value is None else hashlib.sha256(str(value).encode()).hexdigest()[:20]


class PlainCodeField(AnyField):
    """Its values are Codes, and it has only what Django asks of a field: no ``value_to_string``."""

    to_python = CodeField.to_python
    from_db_value = CodeField.from_db_value
    get_prep_value = CodeField.get_prep_value


class CodeEncoder(json.JSONEncoder):
    def default(self, o: Any) -> Any:
        return {"code": o.text} if isinstance(o, Code) else super().default(o)


class CodeDecoder(json.JSONDecoder):
    def __init__(self, **options: Any) -> None:
        super().__init__(object_hook=lambda found: Code(found["code"]) if "code" in found else found, **options)


class StrictAttribute(DeferredAttribute):
    """Does not let itself be read before it is loaded, as some fields that encrypt do."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        if instance is not None and self.field.attname not in vars(instance):
            raise RuntimeError("not loaded")
        return super().__get__(instance, cls)


class EncryptedField(AnyField):
    """Plain in the instance, "encrypted" in the database."""

    descriptor_class = StrictAttribute

    def from_db_value(self, value: Any, expression: object, connection: object) -> Any:
        return value if value is None else value[::-1]

    def get_prep_value(self, value: Any) -> Any:
        return value if value is None else str(value)[::-1]


class PhotoField(models.ImageField):
    """An image whose size is in other fields; nothing here opens one, so Pillow is not needed."""

    def check(self, **kwargs: Any) -> list[Any]:
        return []


class Ticket(models.Model):
    code = CodeField(primary_key=True, max_length=20)
    seat = CodeField(null=True, max_length=20)
    sealed = SealedField(null=True, max_length=20)
    scan = models.BinaryField(default=b"")


class Voucher(models.Model):
    pk = models.CompositePrimaryKey("code", "number")
    code = CodeField(max_length=20)
    number = models.IntegerField()


class Note(models.Model):
    content_type = models.ForeignKey("contenttypes.ContentType", on_delete=models.CASCADE)
    object_id = models.PositiveBigIntegerField()
    target = GenericForeignKey()


class Parcel(models.Model):
    """Fields of every kind that is hard for a snapshot."""

    weight = models.FloatField(db_column="w", default=0)
    width = models.IntegerField(default=1)
    height = models.IntegerField(default=1)
    area = models.GeneratedField(
        expression=models.F("width") * models.F("height"), output_field=models.IntegerField(), db_persist=True
    )
    took = models.DurationField(null=True)
    sent = models.DateTimeField(null=True)
    stage = models.CharField(max_length=10, db_default="new")
    details = models.JSONField(default=dict, encoder=CodeEncoder, decoder=CodeDecoder)
    note = EncryptedField(max_length=20, default="")
    label = PlainCodeField(max_length=20, null=True)
    photo = PhotoField(null=True, width_field="photo_width", height_field="photo_height")
    photo_width = models.IntegerField(null=True)
    photo_height = models.IntegerField(null=True)
    payer = models.ForeignKey(Customer, on_delete=models.CASCADE, db_column="who", null=True)
    ticket = models.ForeignKey(Ticket, on_delete=models.CASCADE, null=True)


class Account(AbstractBaseUser):
    """Can stand for the user model (``AUTH_USER_MODEL``)."""

    name = models.CharField(max_length=50, unique=True)

    objects: ClassVar[BaseUserManager[Any]] = BaseUserManager()

    USERNAME_FIELD = "name"


class AccessToken(models.Model):
    """Its key is itself the secret."""

    key = models.CharField(max_length=40, primary_key=True)
    api_key = models.CharField(max_length=40)
    refreshToken = models.TextField()  # noqa: N815 - as some write it
    primary_key = models.CharField(max_length=40)
    key_points = models.TextField()
    token_count = models.IntegerField(default=0)
    has_password = models.BooleanField(default=False)
    password_changed = models.DateTimeField(null=True)
    secret = models.ForeignKey(Customer, on_delete=models.CASCADE)


class Shelf(models.Model):
    """Has fields of PostgreSQL; a test on PostgreSQL makes the table."""

    places = ArrayField(ArrayField(models.IntegerField(null=True)))
    names = ArrayField(models.CharField(max_length=20))
    free = DateRangeField(null=True)

    class Meta:
        managed = False

    @classmethod
    def check(cls, **kwargs: Any) -> list[Any]:
        return []  # the app of these fields is not installed
