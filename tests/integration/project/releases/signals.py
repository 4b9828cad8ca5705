from deferred_signals import Signal

from . import release

order_placed = Signal()
parcel_sent = Signal()
points_earned = Signal()
payment_due = Signal()
reminder_due = Signal()
price_set = Signal()
voucher_spent = Signal()
coupon_spent = Signal()
account_closed = Signal()
warned = Signal(name="releases.warned")

if not release.NEW:
    returned = Signal()
