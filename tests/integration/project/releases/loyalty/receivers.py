from deferred_signals import receiver

from ..ran import ran
from ..signals import points_earned


@receiver(points_earned, deferred=True)
def send_a_present(sender, **kwargs):
    ran("send_a_present")
