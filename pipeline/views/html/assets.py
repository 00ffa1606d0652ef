"""What every page carries: its style, its script, and plotly, packed to a third of its size."""

import base64
import gzip
import hashlib
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from pipeline.runtime.errors import RunError
from pipeline.views.html.markup import Html, tag

UNPACK = """"use strict";
addEventListener("DOMContentLoaded", async () => {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  for (const text of [await new Response(stream).text(), document.getElementById("page").textContent]) {
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  }
});
"""
"""Runs plotly and then the page's own script. Both are allowed by their digests, like this one."""


def style() -> Html:
    """The page's style sheet."""
    return tag("style", Html(_own("page.css")))


def scripts() -> Html:
    """The script elements at the end of a page."""
    packed = base64.b64encode(gzip.compress(plotly().encode(), mtime=0)).decode()
    return Html(
        tag("script", Html(packed), type="text/plain", id="plotly")
        + tag("script", Html(_own("page.js")), type="text/plain", id="page")
        + tag("script", Html(UNPACK))
    )


def policy() -> str:
    """What the browser may do with the page: no request, and no script but those it carries."""
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in (plotly(), _own("page.js"), UNPACK))
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


@cache
def plotly() -> str:
    """plotly.js as the Python package brings it; the package itself, which takes a while to import, is not needed.

    Raises:
        RunError: it is not installed.
    """
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise RunError(
            "a report needs plotly, which is missing from this installation: pip install 'plotly>=6,<7' brings it."
        )
    return (Path(found.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _own(name: str) -> str:
    return (files("pipeline.views.html") / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
