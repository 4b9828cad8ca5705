"""What of these applications cannot travel by itself, and is taught."""

from allauth.account.models import EmailConfirmationHMAC
from djmoney.money import Money

from deferred_signals import register_codec

register_codec(
    EmailConfirmationHMAC,
    encode=lambda confirmation: confirmation.email_address,
    decode=EmailConfirmationHMAC,
    tag="email-confirmation",
)


register_codec(
    Money,
    encode=lambda money: [money.amount, str(money.currency)],
    decode=lambda parts: Money(*parts),
    tag="money",
)
