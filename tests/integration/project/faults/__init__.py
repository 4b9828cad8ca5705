"""A sender whose broker is broken: what it sends, and how long that takes it."""
