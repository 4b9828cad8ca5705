"""A type of the project's own; only release 2 has a codec for it."""


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents
