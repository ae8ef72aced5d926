"""Stage `compare`: all cells → versioned tables and figures under reports/, and metrics.json."""

from sae_repro.files import replacing_folder, write_json
from sae_repro.params import Cell, Compare, check_section
from sae_repro.progress import say
from sae_repro.stage import StageContext


def run(context: StageContext) -> None:
    """Write reports/tables, reports/figures and reports/metrics.json."""
    from pathlib import Path

    from sae_repro.compare.closing import closing_lines
    from sae_repro.compare.collect import collect
    from sae_repro.compare.controls import heat_maps, write_control
    from sae_repro.compare.features import write_features
    from sae_repro.compare.figures import write_figures
    from sae_repro.compare.grid import write_grid
    from sae_repro.compare.judged import write_judged
    from sae_repro.compare.portraits import write_portraits
    from sae_repro.compare.report import write_findings, write_index, write_metrics
    from sae_repro.compare.tables import headline, write_cells

    settings, seed = context.section(Compare, "compare"), context.value("seed")
    cells = {
        name: check_section(Cell, choices, within=f"cells.{name}")
        for name, choices in context.value("cells").items()
    }
    artifacts, reports = Path("artifacts"), Path("reports")
    results = collect(cells, artifacts)
    with replacing_folder(reports / "tables") as folder:
        write_cells(folder, results, seed)
        write_grid(folder, results, seed)
        write_judged(folder, results, artifacts, seed)
        write_control(folder, artifacts)
        write_features(folder, results)
        write_findings(folder, results, settings, seed)
        write_metrics(folder)
        write_index(folder)
    with replacing_folder(reports / "figures") as folder:
        write_figures(folder, results)
        write_portraits(folder, results)
        heat_maps(folder, artifacts)
    write_json(reports / "metrics.json", {r.name: headline(r) for r in results if r.ok})
    for line in closing_lines(reports, results):
        say(line)
