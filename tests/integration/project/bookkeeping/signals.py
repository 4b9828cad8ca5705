from deferred_signals import Signal

sale = Signal()
receipt_due = Signal()
refund_due = Signal()
audit_due = Signal()
atomic_audit_due = Signal()
reminder_due = Signal()
limit_due = Signal()
soft_limit_due = Signal()
