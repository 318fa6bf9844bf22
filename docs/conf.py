"""Sphinx builds the site from this folder: `make docs`."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # for what is made from the code

from generated_pages.commands import commands_page  # noqa: E402
from generated_pages.configuration import configuration_page  # noqa: E402

project = "MocoSFL"
html_title = "MocoSFL"
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True  # a reference that leads nowhere is a warning, and a warning ends the build
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

# A comment on a page that is replaced by what is made from the code.
GENERATED = {
    "<!-- generated: configuration -->": configuration_page,
    "<!-- generated: commands -->": commands_page,
}
# Files outside this folder that are pages of the site too. On a code host links lead to the files.
PAGES = {
    "../multirun/README.md": "run_folder.md",
    "../benchmarks/README.md": "benchmarks.md",
    "../../multirun/README.md": "../run_folder.md",
    "../../benchmarks/README.md": "../benchmarks.md",
}


def fill(app: Sphinx, name: str, content: list[str]) -> None:
    """Put in what is made from the code, and lead links to files that are pages of the site."""
    for marker, make in GENERATED.items():
        if marker in content[0]:
            content[0] = content[0].replace(marker, make())
    for file, page in PAGES.items():
        content[0] = content[0].replace(f"]({file}", f"]({page}")


def setup(app: Sphinx) -> None:
    """Connect to Sphinx."""
    app.connect("source-read", fill)
