"""Signals of the shop's own."""

from deferred_signals import Signal

#: An order is paid and complete. Sender: ``Order``. Arguments: ``order``.
order_completed = Signal()
