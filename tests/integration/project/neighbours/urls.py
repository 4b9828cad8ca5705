from debug_toolbar.toolbar import debug_toolbar_urls
from django.urls import path

from . import views

urlpatterns = [path("", views.home), *debug_toolbar_urls()]
