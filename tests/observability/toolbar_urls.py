"""Their routes, and the toolbar's; imported when its application is installed, for it has a model."""

from django.urls import include, path

from . import toolbar_views as views

urlpatterns = [
    path("page/", views.page),
    path("committed/", views.committed),
    path("rolled-back/", views.rolled_back),
    path("async/", views.asynchronous),
    path("thread/", views.in_another_thread),
    path("__debug__/", include("debug_toolbar.urls")),
]
