import os
import time
from collections.abc import Sequence

from django.core.mail import EmailMessage
from django.core.mail.backends.filebased import EmailBackend


class SlowFileBackend(EmailBackend):
    """Django's file-based backend, but as slow as a mail server can be, and each e-mail says which process sent it."""

    seconds = 1.0

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        for message in email_messages:
            message.extra_headers["X-Process-Id"] = str(os.getpid())
        time.sleep(self.seconds)
        return super().send_messages(email_messages) or 0
