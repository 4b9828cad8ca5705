from deferred_signals import Signal

peril_due = Signal()
async_peril_due = Signal()
slowness_due = Signal()
haste_due = Signal()
patience_due = Signal()
