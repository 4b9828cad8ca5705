from deferred_signals import Signal

order_completed = Signal()
payment_due = Signal()
webhook_due = Signal()
newsletter_due = Signal()
invoice_due = Signal()
