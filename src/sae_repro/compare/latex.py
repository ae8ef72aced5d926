"""Tables for a paper: booktabs, in ASCII, so that any LaTeX compiles them."""

import re
import unicodedata
from pathlib import Path

import pandas as pd

from sae_repro.files import write_text

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
}  # fmt: skip
SYMBOLS = {
    "×": r"$\times$", "±": r"$\pm$", "−": "$-$", "–": "--", "—": "---", "…": r"\ldots{}",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "≥": r"$\geq$",
    "≤": r"$\leq$", "√": r"$\surd$", "‖": r"$\Vert$", "·": r"$\cdot$", "²": "$^2$",
    "⊃": r"$\supset$", "∞": r"$\infty$", "λ": r"$\lambda$", "φ": r"$\varphi$", "Σ": r"$\Sigma$",
    "π": r"$\pi$", "ε": r"$\varepsilon$", "β": r"$\beta$", "\u00a0": "~", "½": r"$\frac12$",
}  # fmt: skip
ACCENTS = {"\u0302": r"\hat", "\u0304": r"\bar"}
HEAD = "% needs \\usepackage{booktabs,graphicx}\n"


def escaped(text: str) -> str:
    """`text` for LaTeX, in ASCII; what it has no command for is spelt out, as `[U+1F600]`."""
    return "".join(_character(c) for c in re.findall(r".[\u0302\u0304]?", text, re.DOTALL))


def _character(c: str) -> str:
    parts = unicodedata.normalize("NFD", c)
    if len(parts) == 2 and parts[1] in ACCENTS and parts[0].isascii() and parts[0].isalpha():
        return f"${ACCENTS[parts[1]]}{{{parts[0]}}}$"
    if len(c) > 1:
        return "".join(map(_character, c))
    if c in SPECIAL or c in SYMBOLS:
        return SPECIAL.get(c) or SYMBOLS[c]
    if c.isspace():
        return " "
    return c if c.isascii() and c.isprintable() else f"[U+{ord(c):04X}]"


def write_latex(folder: Path, name: str, frame: pd.DataFrame, caption: str) -> None:
    """`name`.tex: `frame` of texts as a table, as wide as the page at most.

    `caption` is the Markdown above the table: its title, then what the numbers rest on.
    """
    title, _, text = caption.removeprefix("# ").partition("\n")
    plain = " ".join(text.replace("**", "").replace("`", "").split())
    rows = [frame.columns.astype(str).tolist(), *frame.astype(str).values.tolist()]
    header, *body = (" & ".join(_cell(value) for value in row) + r" \\" for row in rows)
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{escaped(f'{title}. {plain}'.strip())}}}",
        rf"\label{{tab:{name.replace('_', '-')}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * len(frame.columns)}}}", r"\toprule", header, r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}}", r"\end{table}",
    ]  # fmt: skip
    write_text(folder / f"{name}.tex", HEAD + "\n".join(lines) + "\n")


def _cell(value: str) -> str:
    # `\\` takes a bracket that follows it for a length
    return re.sub(r"^\[", "{[}", escaped(value))
