"""reports/index.html: one file, without a network; text of corpora is escaped by the templates."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sae_repro.files import read_object, write_text
from sae_repro.params import Cell, saes_by_name
from sae_repro.params.cell_labels import is_control
from sae_repro.readers.shards import GIVEN_ROWS, ActivationStore
from sae_repro.report.charts import latent_charts, table_charts
from sae_repro.report.clusters import cluster_charts
from sae_repro.report.ledger import claim_charts
from sae_repro.report.origins import for_page, origins
from sae_repro.report.parts import Maker
from sae_repro.report.population import first_of_each, population_sections
from sae_repro.report.scripts import encoded
from sae_repro.report.sections import cells_section, sections
from sae_repro.report.shown import ShownSae

TEMPLATES = Path(__file__).parent / "templates"
WEB = Path(__file__).parent / "web"
"""What the folder web/ at the root builds: the explorer's application, charts, licences."""


def environment() -> Environment:
    """Templates that escape all they are given, and fail on a name that they are not given."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def bare(text: str) -> str:
    """`text` as a file of UTF-8 and HTML can hold it: what they can't is U+FFFD.

    Half a surrogate has no UTF-8; NUL and other controls are errors in HTML.
    """
    return "".join(
        "\ufffd" if "\ud800" <= c <= "\udfff" or (c < " " and c not in "\t\n") or c == "\x7f" else c
        for c in text
    )


def study_facts(cells: Mapping[str, Cell], artifacts: Path) -> dict[str, Any]:
    """The study in words' data: model, text, hooks, tokens, cells, SAEs."""
    corpus = read_object(artifacts / "corpus" / "corpus.json")
    subject = read_object(artifacts / "subject" / "subject.json")
    store = ActivationStore(artifacts / "extract")
    name = f"{subject['name']} on {corpus['name']}"
    controls = [name for name, cell in cells.items() if is_control(cell)]
    seeds = [len(cell.seeds) for cell in cells.values() if cell.seeds is not None]
    return {
        "study": name,
        "model": subject["name"],
        "corpus": corpus["name"],
        "parameters": subject.get("parameters"),
        "hooks": list(store.manifest["hooks"]),
        "rows": {
            split: store.index(split).rows for split in ("train", "calibration", "validation")
        },
        "cells": len(cells),
        "controls": len(controls),
        "saes": len(saes_by_name(cells)),
        "cells_with_seeds": len(seeds),
        "most_seeds": max(seeds, default=1),
    }


def write_page(
    reports: Path,
    cells: Mapping[str, Cell],
    saes: Sequence[ShownSae],
    artifacts: Path,
    study: Mapping[str, Any],
) -> Path:
    """Write index.html; its path."""
    maker = Maker(reports / "tables", origins(cells, artifacts))
    made = [
        *sections(reports, maker),
        *population_sections(saes, reports / "figures"),
        cells_section(reports, maker),
    ]
    shown = [section for section in made if not section.empty]
    path = reports / "index.html"
    template = environment().get_template("index.html.j2")
    rendered = partial(
        template.render,
        sections=shown,
        explorer=bool(saes),
        library=_library(),
        origins=encoded(for_page(maker.origins)),
        charts=encoded(_charts(reports, saes)),
    )
    pooling = ActivationStore(artifacts / "extract").manifest["pooling"]
    study = {**study, "unit": "rows" if pooling == GIVEN_ROWS else "tokens"}
    # the page says its own size: as many letters as the first draft's place for it
    draft = bare(rendered(study={**study, "page": "0.00 MiB"}))
    size = f"{len(draft.encode()) / 2**20:.2f} MiB"
    write_text(path, bare(rendered(study={**study, "page": size})))
    return path


def _charts(reports: Path, saes: Sequence[ShownSae]) -> dict[str, Any]:
    """The options of charts by the place that shows them."""
    made = {
        **table_charts(reports),
        **latent_charts(saes),
        "clusters": [*cluster_charts(first_of_each(saes))],
        **claim_charts(reports / "tables"),
    }
    return {place: options for place, options in made.items() if options}


def _library() -> str:
    """The script that defines `saeCharts`; empty where it was not built."""
    path = WEB / "charts.js"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def copy_application(folder: Path) -> None:
    """Write the explorer's own files into `folder`, beside its data."""
    for path in sorted(WEB.glob("*")):
        name = "index.html" if path.name == "explorer.html" else path.name
        (folder / name).write_bytes(path.read_bytes())


def write_empty(folder: Path, study: Mapping[str, Any]) -> None:
    """Write the page that stands in `folder` where the explorer has no SAE to show."""
    template = environment().get_template("no_explorer.html.j2")
    write_text(folder / "index.html", bare(template.render(study=study)))
