"""Sphinx configuration; ``make docs`` turns every warning into an error."""

import re

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

# What the tests read in a comment (tests/docs_blocks.py) readers see above the block: the file that it is.
FILE = re.compile(r'^<!-- docs-test: file=(\S+)(?: as="([^"]*)")? -->\n```python\n', re.MULTILINE)


def name_files(app, docname, source):
    def named(found):
        return f"```{{code-block}} python\n:caption: '{found[2] or f'`{found[1]}`'}'\n"

    source[0] = FILE.sub(named, source[0])


def setup(app):
    app.connect("source-read", name_files)
