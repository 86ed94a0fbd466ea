"""How Sphinx builds the site: `sphinx-build -n -W --keep-going scripts/site OUT`.

Three pages are made from the package itself while they are read: the settings from the schema, the
commands from the parser, the names of the API from `gridcast.__all__`. Nothing is fetched, neither
while building nor by the pages.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import gridcast

sys.path.insert(0, str(Path(__file__).parent))

from api_reference import api_reference
from command_reference import command_reference
from config_reference import config_reference

if TYPE_CHECKING:
    from sphinx.application import Sphinx

GENERATED = {
    "reference/config": config_reference,
    "reference/commands": command_reference,
    "reference/api": api_reference,
}

project = "gridcast"
author = "The gridcast authors"
copyright = author
release = version = gridcast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"gridcast {version}"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"footer_icons": []}
pygments_style = "tango"

default_role = "literal"  # single backticks in docstrings are code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
# Of other projects there is no inventory without a network, and modules below are no public names.
nitpick_ignore_regex = [("py:.*", r"(?!gridcast\.\w+$).*")]


def setup(app: Sphinx) -> None:
    app.connect("source-read", _generate)


def _generate(app: Sphinx, name: str, source: list[str]) -> None:
    if name in GENERATED:
        source[0] += "\n" + GENERATED[name]()
