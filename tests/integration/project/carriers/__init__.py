"""The shop with tenants and traces: two carriers of a project's own context."""
