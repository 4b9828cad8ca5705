from deferred_signals import Signal

crowd_came = Signal()
kept_crowd_came = Signal()
