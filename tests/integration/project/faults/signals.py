from deferred_signals import Signal

parcel_sent = Signal()
topic_sent = Signal()
binding_sent = Signal()
nowhere_sent = Signal()
unbound_sent = Signal()
full_sent = Signal()
