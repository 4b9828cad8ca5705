"""The admin of the outbox: registered with Django's default site, if the project has ``django.contrib.admin``.

Django imports this by itself; nothing else of the library does. For a site of your own::

    from deferred_signals.outbox.admin import DeliveryAdmin
    from deferred_signals.outbox.models import OutboxDelivery

    my_site.register(OutboxDelivery, DeliveryAdmin)
"""

from django.contrib import admin

from deferred_signals.outbox.models import OutboxDelivery

from .deliveries import DeliveryAdmin

__all__ = ["DeliveryAdmin"]

admin.site.register(OutboxDelivery, DeliveryAdmin)
