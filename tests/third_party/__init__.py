"""Applications that others have made, driven by real use of their views and APIs, with deferred receivers.

``project`` is a small magazine that uses them. It runs in processes of its own, for the tests' settings have none of
these applications.
"""
