import os

from django.apps import AppConfig
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from deferred_signals import register_carrier

from . import tracing


def _to_line(span):
    return span.to_json(indent=None) + "\n"


class CarriersConfig(AppConfig):
    name = "tests.integration.project.carriers"

    def ready(self) -> None:
        from . import tenants

        tenants.let_the_tenant_travel()
        register_carrier("trace", capture=tracing.capture, restore=tracing.restore)
        provider = TracerProvider()
        file = open(os.environ["SHOP_JOURNAL"] + ".spans", "a")  # noqa: PTH123, SIM115 - open as long as the process
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=file, formatter=_to_line)))
        trace.set_tracer_provider(provider)
