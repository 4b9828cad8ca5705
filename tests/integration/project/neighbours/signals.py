from deferred_signals import Signal

called = Signal()
called_async = Signal()
relayed = Signal()
relayed_async = Signal()
kept = Signal()
