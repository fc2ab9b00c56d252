"""How Sphinx builds the documentation: ``make docs``."""

from importlib.metadata import version as _version

project = "conductor-resilience"
author = "The conductor-resilience authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name for it
release = _version("conductor-resilience")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_member_order = "groupwise"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "conductor-resilience"
