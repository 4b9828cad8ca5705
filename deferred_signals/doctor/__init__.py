"""What ``manage.py deferred_doctor`` looks at: settings, the broker, and the workers behind it."""

from .examination import examine
from .findings import Finding, Section

__all__ = ["Finding", "Section", "examine"]
