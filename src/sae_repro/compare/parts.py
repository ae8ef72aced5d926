"""The comparison in parts that workers do side by side: all tables, and groups of figures.

On one core, drawing takes twice as long as the tables do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sae_repro.compare.activation_figures import write_activation_figures
from sae_repro.compare.by_activation import write_by_quantile, write_dead_curve
from sae_repro.compare.cards import flagged_metrics
from sae_repro.compare.cards_table import write_cards
from sae_repro.compare.claims import write_claims
from sae_repro.compare.collect import Result
from sae_repro.compare.common_pairs import common_pairs
from sae_repro.compare.consistency import write_consistency
from sae_repro.compare.consistency_figure import draw_consistency
from sae_repro.compare.control_ranking import write_ranking
from sae_repro.compare.controls import heat_maps, read_trials, write_control
from sae_repro.compare.curves import write_curves
from sae_repro.compare.examples import write_examples
from sae_repro.compare.features import write_features
from sae_repro.compare.figures import write_figures
from sae_repro.compare.grid import write_grid
from sae_repro.compare.judged import write_judged
from sae_repro.compare.layers import draw_layers
from sae_repro.compare.portraits import write_portraits
from sae_repro.compare.report import write_index, write_metrics, write_verdicts
from sae_repro.compare.scaling.figure import draw_scaling
from sae_repro.compare.scaling.surfaces import fits
from sae_repro.compare.scaling.tables import write_scaling
from sae_repro.compare.steering import write_steering
from sae_repro.compare.tables import unit_in, write_cells
from sae_repro.compare.widths.figure import draw_widths
from sae_repro.compare.widths.tables import measure_widths, write_widths
from sae_repro.files import replacing_folder
from sae_repro.params import Compare
from sae_repro.params.claims import Claim
from sae_repro.params.scaling import Family
from sae_repro.sidebyside import side_by_side


@dataclass(frozen=True)
class Part:
    """A part of the comparison; pickles to a worker."""

    name: str
    work: Callable[[], None]

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Do it; it prints nothing."""
        self.work()
        progress(1)


def write_reports(
    results: Sequence[Result],
    settings: Compare,
    seed: int,
    claims: Mapping[str, Claim],
    artifacts: Path,
    reports: Path,
    families: Mapping[str, Family],
) -> None:
    """Write the folders tables and figures of `reports`, its parts by workers side by side.

    `results` as they were collected: each worker reads the tables of an SAE that it needs.
    """
    targets = settings.matched_l0
    with replacing_folder(reports / "figures") as figures:
        parts = [
            Part("tables", partial(_tables, results, settings, seed, claims, artifacts, reports,
                                   figures, families)),
            Part("figures", partial(write_figures, figures, results, targets)),
            Part("training curves", partial(write_curves, figures, results)),
            Part("heat maps", partial(heat_maps, figures, artifacts)),
            Part("portraits", partial(write_portraits, figures, results)),
            Part("consistency", partial(draw_consistency, figures, results)),
            Part("layers", partial(draw_layers, figures, results)),
        ]  # fmt: skip
        # the longest first: the last one to end decides
        side_by_side([(part, 1) for part in parts], what="compare", unit="part", kept=False)


def _tables(
    results: Sequence[Result],
    settings: Compare,
    seed: int,
    claims: Mapping[str, Claim],
    artifacts: Path,
    reports: Path,
    figures: Path,
    families: Mapping[str, Family],
) -> None:
    """The folder tables, and those `figures` that are drawn from tables."""
    with replacing_folder(reports / "tables") as folder:
        write_cells(folder, results, seed)
        write_grid(folder, results, seed)
        write_judged(folder, results, artifacts, seed)
        write_control(folder, artifacts)
        write_ranking(folder, read_trials(artifacts / "control"), results, seed)
        write_consistency(folder, results)
        write_features(folder, results, seed)
        write_steering(folder, results)
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
        write_metrics(folder, write_cards(folder, results, artifacts), unit_in(results))
        fitted = list(fits(families, results, settings.bootstrap, seed))
        write_scaling(folder, fitted, settings.bootstrap, seed, unit_in(results))
        draw_scaling(figures, fitted)
        widths = measure_widths(results, seed)
        write_widths(folder, widths, unit_in(results))
        draw_widths(figures, widths)
        if claims:
            write_claims(folder, claims)
        write_index(folder, unit_in(results))
    write_activation_figures(figures, reports / "tables", results, settings.matched_l0)
