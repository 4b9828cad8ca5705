from django.urls import path

from . import views

urlpatterns = [
    path("count/<int:number>/", views.count),
    path("acount/<int:number>/", views.acount),
    path("acount-robust/<int:number>/", views.acount_robust),
    path("acount-in-a-transaction/<int:number>/", views.acount_in_a_transaction),
    path("count-in-the-loop/<int:number>/", views.count_in_the_loop),
    path("longest-pause/", views.longest_pause),
]
