from django.db.models.signals import post_save

from deferred_signals import receiver

from . import release, signals, tenants
from .ran import ran, wait_for_the_gate

if release.NEW:
    from .archive.models import Van
    from .archive.signals import returned
    from .models import Warehouse as Depot
else:
    from .models import Depot, Van
    from .signals import returned


@receiver(signals.order_placed, deferred=True)
def pack(sender, **kwargs):
    """The receiver of both releases that nothing has happened to."""
    ran("pack", tenant=tenants.current())


if release.NEW:

    @receiver(signals.order_placed, deferred=True)
    def insure(sender, **kwargs):
        ran("insure")

    @receiver(signals.parcel_sent, deferred=True, aliases=[f"{__name__}.tell_customer"])
    def notify_customer(sender, **kwargs):
        ran("notify_customer")

    @receiver(signals.account_closed, deferred=True, max_retries=1, retry_backoff=1)
    def audit(sender, reason, **kwargs):
        ran("audit", reason=reason)

else:

    @receiver(signals.parcel_sent, deferred=True)
    def tell_customer(sender, **kwargs):
        ran("tell_customer")

    @receiver(signals.points_earned, deferred=True)
    def count_points(sender, **kwargs):
        ran("count_points")

    @receiver(signals.account_closed, deferred=True, max_retries=1, retry_backoff=1)
    def audit(sender, **kwargs):
        ran("audit", **{name: kwargs[name] for name in kwargs if name == "reason"})


@receiver(signals.points_earned, deferred=True)
def thank(sender, **kwargs):
    ran("thank")


@receiver(signals.payment_due, deferred=True, max_retries=1 if release.NEW else 5, retry_backoff=1, retry_jitter=False)
def charge(sender, **kwargs):
    ran("charge")
    wait_for_the_gate()
    raise ConnectionError("the bank is busy")


@receiver(signals.reminder_due, deferred=True, max_retries=2 if release.NEW else 1, retry_backoff=1, retry_jitter=False)
def remind(sender, **kwargs):
    ran("remind")
    wait_for_the_gate()
    raise ConnectionError("nobody there")


@receiver(signals.price_set, deferred=True)
def print_label(sender, price, **kwargs):
    ran("print_label", cents=price.cents)


@receiver(post_save, sender=Depot, deferred=True)
def put_on_the_map(sender, instance, **kwargs):
    ran("put_on_the_map", name=instance.name)


@receiver(post_save, sender=Van, deferred=True)
def tax(sender, instance, **kwargs):
    ran("tax", name=instance.name)


@receiver(signals.voucher_spent, deferred=True)
def book_voucher(sender, voucher, **kwargs):
    ran("book_voucher", code=voucher.code, deferred=sorted(voucher.get_deferred_fields()))


@receiver(signals.coupon_spent, deferred=True)
def book_coupon(sender, coupon, **kwargs):
    ran("book_coupon", code=coupon.code, deferred=sorted(coupon.get_deferred_fields()))


@receiver(returned, deferred=True)
def restock(sender, signal, **kwargs):
    ran("restock", itself=signal is returned)


@receiver([returned, signals.warned], deferred=True)
def keep_books(sender, signal, **kwargs):
    ran("keep_books", itself=signal is signals.warned)
