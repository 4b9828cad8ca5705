"""Models of every shape that a signal may carry."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.contenttypes.fields import GenericForeignKey
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
    """Its values have no text form."""

    def value_to_string(self, obj: models.Model) -> Any:
        raise NotImplementedError("sealed")


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
