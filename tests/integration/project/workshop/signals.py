from deferred_signals import Signal

counted = Signal()
held = Signal()
held_patiently = Signal()
later = Signal()
in_the_year_3000 = Signal()
failing = Signal()
stubborn = Signal()
telling = Signal()
telling_at_once = Signal()
limited = Signal()
querying = Signal()
