"""The shop's workshop: senders in every kind of process, and receivers that are slow, fail, or meet a fault."""
