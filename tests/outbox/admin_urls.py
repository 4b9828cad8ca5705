"""URLs of the tests of the admin: Django's own site, and one as projects make them."""

from django.contrib import admin
from django.urls import path

from deferred_signals.outbox.admin import DeliveryAdmin
from deferred_signals.outbox.models import OutboxDelivery

office = admin.AdminSite(name="office")
office.register(OutboxDelivery, DeliveryAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("office/", office.urls)]
