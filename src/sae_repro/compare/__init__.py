"""Stage `compare`: all cells → versioned tables and figures under reports/, and metrics.json."""

from sae_repro.contents import check
from sae_repro.files import replacing_folder, write_json
from sae_repro.params import Compare, read_cells
from sae_repro.progress import say
from sae_repro.stage import StageContext


def run(context: StageContext) -> None:
    """Write reports/: tables, figures, metrics.json, and for DVC's commands metrics and plots."""
    from pathlib import Path

    from sae_repro.compare.claims import pinned
    from sae_repro.compare.closing import closing_lines
    from sae_repro.compare.collect import collect
    from sae_repro.compare.dvc_views import write_metric_files, write_plot_tables
    from sae_repro.compare.parts import write_reports
    from sae_repro.compare.tables import headline
    from sae_repro.params.recipes import families

    settings, seed = context.section(Compare, "compare"), context.value("seed")
    cells = read_cells(context.value("recipes"), context.value("cells"))
    artifacts, reports = Path("artifacts"), Path("reports")
    claims = pinned(settings, Path())
    for stage in ("train", "evaluate", "judge", "control"):
        check(context.artifacts(stage))
    results = collect(cells, artifacts)
    laws = families(context.value("cells"))
    write_reports(results, settings, seed, claims, artifacts, reports, laws)
    write_json(reports / "metrics.json", {r.name: headline(r) for r in results if r.ok})
    with replacing_folder(reports / "metrics") as folder:
        write_metric_files(folder, results)
    with replacing_folder(reports / "plots") as folder:
        write_plot_tables(folder, results)
    for line in closing_lines(reports, results):
        say(line)
