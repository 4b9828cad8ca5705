"""Programs of the tests of observability: what they use changes Celery for the rest of a process."""
