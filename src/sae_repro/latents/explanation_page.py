"""An explanation as a web page that needs nothing beside it: no script, no font, no network."""

from pathlib import Path
from typing import Any

from sae_repro.errors import one_line
from sae_repro.latents.explanation import Explanation

TEMPLATE = "explanation.html.jinja"


def page_of(explanation: Explanation) -> str:
    """HTML; names and tokens are escaped, and what would turn the text's direction is spelled."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"visible": visible, "share": _share}
    return environment.get_template(TEMPLATE).render(it=explanation)


def visible(text: Any) -> str:
    """`text` with white space and control characters to be seen: `␣the`, `⏎`, `\\x1b`."""
    return one_line(str(text).replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣"))


def _share(value: float, whole: float) -> str:
    """`value` as a percentage of `whole`, for a width or a shade."""
    return f"{100 * value / whole if whole else 0:.1f}%"
