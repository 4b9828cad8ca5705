from django.http import HttpResponse
from djmoney.money import Money
from knox.views import LoginView
from rest_framework.authentication import BasicAuthentication

from .models import Article, Label


class ApiLogin(LoginView):
    authentication_classes = (BasicAuthentication,)


def write(request):
    if request.method == "POST":
        Article.objects.create(
            title=request.POST["title"],
            author=request.user,
            cover=request.FILES.get("cover", ""),
            fee=Money(request.POST["fee"], "USD"),
        )
    return HttpResponse()


def edit(request, pk):
    article = Article.objects.get(pk=pk)
    article.title = request.POST["title"]
    article.save()
    article.labels.set([Label.objects.get_or_create(name=name)[0] for name in request.POST.getlist("labels")])
    return HttpResponse()


def publish(request, pk):
    article = Article.objects.get(pk=pk)
    article.publish(request.user, note=request.POST["note"])
    article.save()
    return HttpResponse()


def retract(request, pk):
    """Does not save: nobody but the signal tells that the article is disputed."""
    try:
        Article.objects.get(pk=pk).retract()
    except ValueError as error:
        return HttpResponse(str(error), status=409)
    return HttpResponse()


def delete(request, pk):
    Article.objects.get(pk=pk).delete()
    return HttpResponse()
