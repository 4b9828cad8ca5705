"""What a send and a delivery cost, beside Django's own dispatch and Celery by hand; see README.md."""
