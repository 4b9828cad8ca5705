"""Sphinx configuration; ``make docs`` turns every warning into an error."""

project = "deferred_signals"
author = "The deferred_signals authors"
copyright = author  # noqa: A001 -- Sphinx's name

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["custom.css"]
