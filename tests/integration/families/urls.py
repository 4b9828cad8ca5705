from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpResponse
from django.urls import path


def hello(request):
    return HttpResponse("hello")


def fail(request):
    raise ValueError("this view always fails")


urlpatterns = [
    path("hello/", hello),
    path("fail/", fail),
    path("login/", LoginView.as_view(next_page="/hello/")),
    path("logout/", LogoutView.as_view(next_page="/hello/")),
]
