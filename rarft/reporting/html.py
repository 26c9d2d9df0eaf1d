"""HTML pages from the Jinja2 templates in `templates/`.

A page is one file: it loads no script, style or image from elsewhere. All values are escaped.
"""

import base64
import functools
import gzip
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def _format_cell(value: object) -> str:
    """Format a value for a table: three decimals for a float, a dash for None."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _numeric_columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[bool]:
    """Return which columns of a table contain only numbers."""
    return [
        bool(rows) and all(isinstance(row[index], int | float | None) for row in rows) for index in range(len(header))
    ]


def compressed(name: str, content: bytes) -> Markup:
    """Return a block that the page's script `inflate.js` decompresses by its name."""
    text = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
    return Markup('<script type="application/gzip" id="{}">{}</script>').format(name, text)


@functools.cache
def _library(name: str) -> Markup:
    """Return a library of `vendor/`, compressed."""
    return compressed(name, resources.files("rarft.reporting").joinpath(f"vendor/{name}.min.js").read_bytes())


_environment = Environment(
    loader=PackageLoader("rarft.reporting"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["cell"] = _format_cell
_environment.globals["numeric_columns"] = _numeric_columns
_environment.globals["library"] = _library


def render_page(template: str, title: str, note: str, **values: Any) -> str:
    """Render a page from a template and its values; `note` is the line below the heading."""
    return _environment.get_template(template).render(title=title, note=note, **values) + "\n"
