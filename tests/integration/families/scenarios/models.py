"""Rows that are saved, deleted and related, as any application does it."""

# The type checker's plugin knows the models of one set of settings, not these.
# mypy: disable-error-code="attr-defined"

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from django.core.management import call_command
from django.db import transaction

from ..models import Customer, Order, Product
from ..recording import recording

FIXTURE = Path(__file__).parent.parent / "fixtures" / "orders.json"


def _ordered(name):
    """A customer with two orders of two products."""
    customer = Customer.objects.create(name=name)
    products = [
        Product.objects.create(name=f"{name}'s {thing}", properties={"of": [thing]}) for thing in ("tea", "milk")
    ]
    for total in ("9.90", "100000.05"):
        order = Order.objects.create(customer=customer, total=Decimal(total), delivery_time=timedelta(1, 2, 3))
        order.products.set(products)
    return customer


def saves():
    with recording("pre_save", "post_save") as found:
        customer = _ordered("Ada")
        # A reference is read when the delivery runs: each state must arrive before the next is made.
        found.wait()
        customer.name = "Augusta Ada"
        customer.save()
        with transaction.atomic():
            Customer(name="Grace").save()
        product = Product.objects.create(name="bread")
        found.wait()
        product.name = "rye bread"
        product.save(update_fields=["name"])
        found.wait()
        # The other fields have not been loaded, and are not loaded for the delivery.
        product = Product.objects.only("name").get(pk=product.pk)
        product.name = "wheat bread"
        product.save()
        assert product.get_deferred_fields() == {"properties"}
    update_fields = [arguments["update_fields"] for _, arguments in found.live]
    return found.answer() | {
        "created": [arguments["created"] for name, arguments in found.live if name == "post_save"],
        "update_fields": sorted({str(value and sorted(value)) for value in update_fields}),
    }


def loaded_from_a_fixture():
    with recording("pre_save", "post_save", "m2m_changed") as found:
        call_command("loaddata", FIXTURE, verbosity=0)
    return found.answer() | {"raw": [[name, arguments.get("raw")] for name, arguments in found.live]}


def deletes():
    Product.objects.all().delete()  # of scenarios before
    customer, others = _ordered("Ada"), [_ordered(name) for name in ("Grace", "Joan")]
    with recording("pre_delete", "post_delete") as found:
        customer.delete()
        Customer.objects.filter(pk__in=[other.pk for other in others]).delete()
        # The queryset has been read, so it knows its rows when they are gone.
        products = Product.objects.filter(name__startswith="Ada")
        assert len(products) == 2
        products.delete()
    origins = [type(arguments["origin"]).__name__ for name, arguments in found.live if name == "post_delete"]
    return found.answer() | {
        "deleted": sorted(arguments["sender"].__name__ for name, arguments in found.live if name == "post_delete"),
        "origins": sorted(set(origins)),
    }


def relations():
    customer = _ordered("Ada")
    first, second = Order.objects.filter(customer=customer)
    bread = Product.objects.create(name="bread")
    with recording("m2m_changed") as found:
        first.products.add(bread)
        first.products.remove(bread)
        first.products.clear()
        bread.orders.add(first, second)
        bread.orders.remove(first)
        bread.orders.clear()
    return found.answer() | {
        "actions": [[arguments["action"], arguments["reverse"]] for _, arguments in found.live],
        "pk_sets": found.kinds("pk_set"),
    }
