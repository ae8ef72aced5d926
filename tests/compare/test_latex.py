"""LaTeX tables: what they hold, and that nothing in a text can break them."""

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.compare.latex import escaped, write_latex
from sae_repro.compare.tables import number, with_interval
from sae_repro.metrics import AREAS
from sae_repro.metrics.labels import LABELS, heading


@pytest.mark.parametrize(
    ("text", "latex"),
    [("8× ± 3", r"8$\times$ $\pm$ 3"), ("λ_1 = 5 %", r"$\lambda$\_1 = 5 \%"),
     ("FVU ↓", r"FVU $\downarrow$"), ("x̂ & x̄", r"$\hat{x}$ \& $\bar{x}$"),
     ("a\\b{c}", r"a\textbackslash{}b\{c\}"), ("—", "---")],
)  # fmt: skip
def test_symbols_of_the_tables(text: str, latex: str) -> None:
    assert escaped(text) == latex


@given(st.text())
def test_any_text_is_safe(text: str) -> None:
    latex = escaped(text)
    assert latex.isascii()
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|ldots)\{\}", "", latex)
    bare = re.sub(r"\\[{}$&%#_]", "", bare)
    assert bare.count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$", "", bare)
    assert not re.search(
        r"[\\{}&%#_^~$]", outside.replace("~", "") if "\u00a0" in text else outside
    )


def test_a_table_has_a_cell_for_every_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"cell": ["a_1", "b & c"], "FVU ↓": ["[0.1, 0.2]", "3 ± 1"]})
    write_latex(tmp_path, "cells", frame, "# All cells\n\n100 % of **them**.")
    lines = (tmp_path / "cells.tex").read_text().splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert rows == [r"cell & FVU $\downarrow$ \\", r"a\_1 & {[}0.1, 0.2] \\",
                    r"b \& c & 3 $\pm$ 1 \\"]  # fmt: skip
    assert r"\caption{All cells. 100 \% of them.}" in lines
    assert [line for line in lines if line.endswith("rule")] == [
        r"\toprule", r"\midrule", r"\bottomrule"
    ]  # fmt: skip


def test_numbers_have_three_significant_digits() -> None:
    assert [number(v) for v in (0.05644, 0.5, 12.345, 123.4, 1234.5, 4.549e-16, 0.0, None)] == [
        "0.0564", "0.500", "12.3", "123", "1,234", "4.55e-16", "0", "—",
    ]  # fmt: skip
    assert with_interval(0.0564, (0.05, 0.06)) == "0.0564 [0.0500, 0.0600]"
    assert with_interval(0.0564, None) == "0.0564"


def test_every_metric_that_is_shown_has_a_label_and_headings_say_unit_and_direction() -> None:
    shown = {row.base for rows in AREAS.values() for row in rows if row.shown}
    assert shown
    assert shown <= LABELS.keys()
    assert heading("fvu") == "FVU ↓"
    assert heading("kl") == "KL divergence (nats per target) ↓"
    assert heading("probe_auc_5") == "probe AUC, 5 latents (fraction) ↑"
    assert heading("l0") == "L0 (latents per token)"
