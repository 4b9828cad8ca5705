"""The ledger test: what is lost, doubled, or should never have been, while workers and brokers are killed.

``python -m tests.chaos --help``; docs/chaos.md says how to read it.
"""
