"""Deferred receivers of real usefulness; ``docs/third-party.md`` shows them."""

from allauth.account.signals import email_changed, email_confirmation_sent
from django.contrib.auth.signals import user_logged_in
from django.core.mail import send_mail
from django.db.models.signals import post_delete
from django_fsm.signals import post_transition
from easy_thumbnails.signal_handlers import generate_aliases_global
from easy_thumbnails.signals import saved_file
from oauth2_provider.signals import app_authorized
from simple_history.signals import post_create_historical_record

from deferred_signals import connect, receiver

from .journal import note
from .models import Article


@receiver(email_changed, deferred=True)
def warn_the_old_address(sender, from_email_address, to_email_address, **kwargs):
    if from_email_address is not None:
        send_mail("Your address has changed", f"to {to_email_address.email}", None, [from_email_address.email])


@receiver(email_confirmation_sent, deferred=True)
def count_on_a_confirmation(sender, confirmation, signup, **kwargs):
    note("confirmation", email=confirmation.email_address.email, signup=signup)


@receiver(user_logged_in, deferred=True)
def tell_about_the_device(sender, request, user, **kwargs):
    device = request.headers.get("user-agent", "an unknown device")
    send_mail("A new login", f"from {device} at {request.remote_addr}", None, [user.email])


@receiver(app_authorized, deferred=True)
def tell_about_the_app(sender, token, **kwargs):
    send_mail("Access to your account", f"{token.application.name} may {token.scope}", None, [token.user.email])


@receiver(post_create_historical_record, deferred=True, instance="snapshot")
def audit(sender, history_instance, history_user, **kwargs):
    before = history_instance.prev_record
    changes = history_instance.diff_against(before).changes if before else []
    note(
        "audit",
        record=history_instance.get_history_type_display(),
        title=history_instance.title,
        by=history_user and history_user.username,
        changes=[[change.field, change.old, change.new] for change in changes],
    )


@receiver(post_transition, sender=Article, deferred=True, instance="snapshot")
def announce(sender, instance, target, method_args, **kwargs):
    if target == "published":
        [editor] = method_args
        send_mail(instance.title, f"is {instance.state}, says {editor}", None, [instance.author.email])


@receiver(post_delete, sender=Article, deferred=True)
def cancel_the_fee(sender, instance, **kwargs):
    send_mail("No fee", f"of {instance.fee.amount} {instance.fee.currency}", None, [instance.author.email])


connect(saved_file, generate_aliases_global, deferred=True)
