from deferred_signals import Signal

returned = Signal()
