from django.urls import include, path
from knox.views import LogoutView

from . import views

urlpatterns = [
    path("accounts/", include("allauth.urls")),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("api/login/", views.ApiLogin.as_view()),
    path("api/logout/", LogoutView.as_view()),
    path("articles/", views.write),
    path("articles/<int:pk>/", views.edit),
    path("articles/<int:pk>/publish/", views.publish),
    path("articles/<int:pk>/retract/", views.retract),
    path("articles/<int:pk>/delete/", views.delete),
]
