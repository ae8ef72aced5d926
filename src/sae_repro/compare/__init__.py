"""Stage `compare`: all cells → versioned tables and figures under reports/, and metrics.json."""

from sae_repro.contents import check
from sae_repro.files import replacing_folder, write_json
from sae_repro.params import Compare, read_cells
from sae_repro.progress import say
from sae_repro.stage import StageContext


def run(context: StageContext) -> None:
    """Write reports/: tables, figures, metrics.json, and for DVC's commands metrics and plots."""
    from pathlib import Path

    from sae_repro.compare.activation_figures import write_activation_figures
    from sae_repro.compare.by_activation import write_by_quantile, write_dead_curve
    from sae_repro.compare.cards import flagged_metrics
    from sae_repro.compare.cards_table import write_cards
    from sae_repro.compare.claims import pinned, write_claims
    from sae_repro.compare.closing import closing_lines
    from sae_repro.compare.collect import collect
    from sae_repro.compare.common_pairs import common_pairs
    from sae_repro.compare.consistency import write_consistency
    from sae_repro.compare.consistency_figure import draw_consistency
    from sae_repro.compare.controls import heat_maps, write_control
    from sae_repro.compare.dvc_views import write_metric_files, write_plot_tables
    from sae_repro.compare.examples import write_examples
    from sae_repro.compare.features import write_features
    from sae_repro.compare.figures import write_figures
    from sae_repro.compare.grid import write_grid
    from sae_repro.compare.judged import write_judged
    from sae_repro.compare.portraits import write_portraits
    from sae_repro.compare.report import write_index, write_metrics, write_verdicts
    from sae_repro.compare.tables import headline, write_cells

    settings, seed = context.section(Compare, "compare"), context.value("seed")
    cells = read_cells(context.value("recipes"), context.value("cells"))
    artifacts, reports = Path("artifacts"), Path("reports")
    claims = pinned(settings, Path())
    for stage in ("train", "evaluate", "judge", "control"):
        check(context.artifacts(stage))
    results = collect(cells, artifacts)
    with replacing_folder(reports / "tables") as folder:
        write_cells(folder, results, seed)
        write_grid(folder, results, seed)
        write_judged(folder, results, artifacts, seed)
        write_control(folder, artifacts)
        write_consistency(folder, results)
        write_features(folder, results, seed)
        write_examples(folder, results, seed)
        write_by_quantile(folder, results, seed)
        write_dead_curve(folder, results)
        write_verdicts(
            folder,
            results,
            settings,
            seed,
            flagged=frozenset(flagged_metrics(results)),
            common=lambda names, metric: common_pairs(results, names, metric, seed).estimates,
        )
        write_metrics(folder, write_cards(folder, results, artifacts))
        if claims:
            write_claims(folder, claims)
        write_index(folder)
    with replacing_folder(reports / "figures") as folder:
        write_figures(folder, results, settings.matched_l0)
        write_portraits(folder, results)
        draw_consistency(folder, results)
        write_activation_figures(folder, reports / "tables", results, settings.matched_l0)
        heat_maps(folder, artifacts)
    write_json(reports / "metrics.json", {r.name: headline(r) for r in results if r.ok})
    with replacing_folder(reports / "metrics") as folder:
        write_metric_files(folder, results)
    with replacing_folder(reports / "plots") as folder:
        write_plot_tables(folder, results)
    for line in closing_lines(reports, results):
        say(line)
