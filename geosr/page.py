"""A page to look at: one HTML file with its style, charts and pictures inside, that needs nothing else."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from geosr.files import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body{font:14px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em}h3{font-size:1em;margin:1.6em 0 .4em}
table{border-collapse:collapse}td,th{padding:.2em .9em .2em 0;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left;white-space:nowrap}th{font-weight:600;vertical-align:bottom}
td small,th small{display:block;font-weight:normal;color:#777;line-height:1.1;white-space:nowrap}
img{max-width:100%}pre{background:#f6f6f6;padding:1em;overflow:auto}summary{cursor:pointer;margin-top:2em}
.wide{overflow-x:auto}.best{font-weight:bold}.note{color:#777}.alarm{color:#b02a1a;font-weight:bold}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:1em}.charts img{width:100%}
.grid{display:grid;gap:.4em;margin:.6em 0;overflow-x:auto}figure{margin:0;min-width:130px}
figure img{width:100%;display:block;image-rendering:pixelated}figcaption{font-size:12px;line-height:1.3}
"""


def write_page(path: Path, title: str, sections: Iterable[str]) -> Path:
    """``path``, where the page is whole or still the one before: it replaces that in one step.

    Args:
        path: The file.
        title: Text of the title and of the heading.
        sections: HTML of each section; empty ones are left out.
    """
    told = escape(title)
    body = "\n".join([f"<h1>{told}</h1>", *filter(None, sections)])
    return write(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{told}</title><style>{STYLE}</style>'
        f"</head><body>\n{body}\n</body></html>\n",
    )


def picture(alt: str, png: bytes) -> str:
    """HTML of a PNG image."""
    return _image(alt, "image/png", png)


def drawing(alt: str, figure: Figure) -> str:
    """HTML of a chart."""
    return _image(alt, "image/svg+xml", to_svg(figure).encode())


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document, the same for the same figure."""
    from matplotlib import rc_context

    drawn = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "geosr"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def _image(alt: str, kind: str, data: bytes) -> str:
    return f'<img alt="{escape(alt)}" src="data:{kind};base64,{b64encode(data).decode()}">'
