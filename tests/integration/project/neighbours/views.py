from django.http import HttpResponse


def always(request):
    return True


def home(request):
    return HttpResponse("<html><body>the shop</body></html>")
