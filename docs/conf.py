"""How Sphinx makes the site of the documentation; `make docs` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from fastapi_cacheinval.version import __version__

sys.path.append(str(Path(__file__).parent / "_extensions"))

project = "fastapi-cacheinval"
author = "the fastapi-cacheinval authors"
copyright = "the fastapi-cacheinval authors"  # noqa: A001 - Sphinx reads it under this name.
release = version = __version__

extensions = [
    "contents",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_extensions", "examples", "grafana"]
root_doc = "index"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"fastapi-cacheinval {release}"
html_static_path = ["_static"]
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}
# The drawing program stands beside the pages, so that reading them asks nobody else.
mermaid_use_local = "mermaid/mermaid.esm.min.mjs"
mermaid_version = ""
mermaid_d3_zoom = False

# Types of other packages, whose sites are not asked, and what our signatures name without being public.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(collections|datetime|enum|os|pathlib|types|typing|uuid|re|httpx|redis|asyncio|contextlib|confluent_kafka|ssl|fastapi|starlette|sqlalchemy|opentelemetry)\b.*",
    ),
    ("py:.*", r"fastapi_cacheinval\..*\..*"),
    ("py:.*", r"fastapi_cacheinval\.(cache|dependencies|errors|middleware)\..*"),
]
