from django.http import HttpRequest, HttpResponse

from .models import Customer


def sign_up(request: HttpRequest) -> HttpResponse:
    customer = Customer.objects.create(name=request.POST["name"])
    return HttpResponse(str(customer.pk))


def broken(request: HttpRequest) -> HttpResponse:
    Customer.objects.create(name="never")
    raise RuntimeError("after the send")
