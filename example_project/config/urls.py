from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import path
from shop import views

urlpatterns = [
    path("", views.home, name="home"),
    path("sign-up/", views.sign_up, name="sign_up"),
    path("sign-out/", LogoutView.as_view(), name="sign_out"),
    path("books/<int:pk>/order/", views.place_order, name="place_order"),
    path("news/", views.news, name="news"),
    path("admin/", admin.site.urls),
]
