from django import forms
from django.contrib.auth.forms import UserCreationForm

from .models import User


class SignUpForm(UserCreationForm):
    fail_after_saving = forms.BooleanField(
        required=False,
        label="Fail after saving",
        help_text="Raises an exception in the transaction, after post_save was sent: no e-mail may go out.",
    )

    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username", "email")
