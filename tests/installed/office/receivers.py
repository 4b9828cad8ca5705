from deferred_signals import Signal, receiver

letter_came = Signal()


@receiver(letter_came, deferred=True, durable=True, max_retries=0)
def file_letter(sender, number, **kwargs):
    if number == 13:
        raise ValueError("no drawer has this number")
