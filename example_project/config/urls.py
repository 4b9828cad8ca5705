from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import path
from shop import views

urlpatterns = [
    path("", views.home, name="home"),
    path("sign-up/", views.sign_up, name="sign_up"),
    path("sign-out/", LogoutView.as_view(), name="sign_out"),
    path("books/<int:pk>/order/", views.place_order, name="place_order"),
    path("webhook/", views.switch_webhook, name="switch_webhook"),
    path("news/", views.news, name="news"),
    path("admin/", admin.site.urls),
]

if "debug_toolbar" in settings.INSTALLED_APPS:
    from debug_toolbar.toolbar import debug_toolbar_urls

    urlpatterns += debug_toolbar_urls()
