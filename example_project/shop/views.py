from typing import Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from . import journal
from .forms import SignUpForm
from .models import Activity, Book, Order, Webhook
from .signals import order_completed


class SignUpFailed(Exception):
    """Something went wrong after the user was saved."""


def news_for(request: HttpRequest) -> dict[str, Any]:
    """What changes while somebody looks at the page."""
    orders = Order.objects.filter(customer=request.user.pk).select_related("book")
    return {"orders": orders, "activities": Activity.objects.all()[:25]}


def render_home(request: HttpRequest, form: SignUpForm, status: int = 200) -> HttpResponse:
    context = {"form": form, "books": Book.objects.all(), "webhook": Webhook.objects.get(), **news_for(request)}
    return render(request, "shop/home.html", context, status=status)


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    return render_home(request, SignUpForm())


@require_GET
def news(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/_news.html", news_for(request))


@require_POST
def sign_up(request: HttpRequest) -> HttpResponse:
    form = SignUpForm(request.POST)
    if not form.is_valid():
        return render_home(request, form, status=422)
    try:
        with transaction.atomic():
            journal.write_on_commit("sign-up committed")
            user = form.save()  # post_save: create_profile runs here, send_welcome_email waits for the commit
            if form.cleaned_data["fail_after_saving"]:
                raise SignUpFailed
    except SignUpFailed:
        journal.write("sign-up rolled back", note=form.cleaned_data["username"])
        messages.error(request, "Rolled back: no user, no profile, and no e-mail about a user who does not exist.")
        return redirect("home")
    login(request, user)
    messages.success(request, f"Welcome, {user}! A worker is writing your e-mail.")
    return redirect("home")


@require_POST
@login_required
def place_order(request: HttpRequest, pk: int) -> HttpResponse:
    book = get_object_or_404(Book, pk=pk)
    with transaction.atomic():
        journal.write_on_commit("order committed")
        order = Order.objects.create(customer=request.user, book=book)
        order_completed.send(sender=Order, order=order)
    messages.success(request, f"“{book}” is on its way. Four receivers see to it on a worker.")
    return redirect("home")


@require_POST
@login_required
def switch_webhook(request: HttpRequest) -> HttpResponse:
    """Break the publisher's webhook, or mend it."""
    is_broken = request.POST.get("is_broken") == "yes"
    Webhook.objects.update(is_broken=is_broken)
    journal.write(f"the publisher's webhook is {'broken' if is_broken else 'mended'}")
    if is_broken:
        messages.error(request, "The webhook is broken. Order a book, and see its report fail.")
    else:
        messages.success(request, "The webhook answers. Dead reports can be redelivered in the admin.")
    return redirect("home")
