"""The shop's settings with django-tenants, on PostgreSQL."""

from ..settings import *  # noqa: F403
from ..settings import DATABASES, INSTALLED_APPS

# In both: a row that is read outside its tenant is another one, and not one that is missing.
TENANT_APPS = ["tests.integration.project.carriers.ledger"]
INSTALLED_APPS = [
    "django_tenants",
    "django.contrib.contenttypes",
    "tests.integration.project.carriers",
    *INSTALLED_APPS,
    *TENANT_APPS,
]
SHARED_APPS = INSTALLED_APPS
TENANT_MODEL = "carriers.Tenant"
TENANT_DOMAIN_MODEL = "carriers.Domain"
DATABASES["default"]["ENGINE"] = "django_tenants.postgresql_backend"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
