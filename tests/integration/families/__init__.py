"""A project in which every signal of Django is sent by real use, and what a worker gets is compared with what was sent.

The sender's process keeps, at each send, what an inline receiver gets; a deferred receiver on the same send writes down
on the worker what has arrived. What should arrive is read from the table of ``docs/signals.md``.
"""
