from deferred_signals import Signal

kept = Signal()
kept_apart = Signal()
retried = Signal()
buried = Signal()
timed_out = Signal()
crashed = Signal()
late = Signal()
postponed = Signal()
guarded = Signal()
