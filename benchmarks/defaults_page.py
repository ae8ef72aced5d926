"""reports/benchmarks/defaults.md from the tables that `benchmarks.defaults` fills."""

from importlib.metadata import version
from typing import Any

from scipy.stats import ttest_ind

from .defaults import OURS, K
from .tables import read, write_page

SEEDS_OF_AN_INTERVAL = 3


def write_report() -> None:
    """defaults.md from the tables."""
    table = read("defaults")
    others = read("defaults_tried")
    parts = [_introduction(table), _same_k(table), _same_l0(table)]
    body = "\n\n".join([*parts, _tried(others)] if len(others) else parts)
    write_page("defaults", "Our defaults beside SAELens'", body, table)


def _introduction(table: Any) -> str:
    sizes = table.drop_duplicates("activations")
    widths = "; ".join(
        f"{row.activations}: {row.expansion} latents a dimension, {row.tokens:,} tokens in batches "
        f"of {row.batch}"
        for row in sizes.itertuples()
    )
    return (
        "Held-out FVU of each seed, in brackets L0 and the latents that fire on none of the "
        f"validation activations. {widths}; both in orders of their own. sae-repro: a cell's "
        "defaults (lr 0.08 / √D, grad_clip 0.01, normalisation expected_norm). SAELens "
        f"{version('sae-lens')}: its trainer and its defaults beside lr, inputs of mean norm √D "
        "(expected_average_only_in), with the same warm-up and decay. For both a latent is dead "
        "that fired on none of a third of the training tokens: SAELens' default of 1,000 steps, "
        "more than these trainings have, would revive none. Of SAELens' rates the best is in bold. "
        "The root study's rows of gated SAEs, ours and SAELens', are of activations of a later "
        "subject than its other rows."
    )


def _same_k(table: Any) -> str:
    """One row per architecture whose k sets the sparsity."""
    shown = table[[("k" in OURS[name]) for name in table["architecture"]]]
    best = _best(shown)
    shown = shown.assign(
        way=[_way(row) for row in shown.itertuples()],
        found=[_found(row) for row in shown.itertuples()],
    )
    wide = shown.groupby(["activations", "architecture", "way"], sort=False)["found"].agg("; ".join)
    table = wide.unstack("way", sort=False).fillna("–").reset_index()
    for row in table.index:
        way = best[table.loc[row, "activations"], table.loc[row, "architecture"]]
        table.loc[row, way] = f"**{table.loc[row, way]}**"
    return (
        f"## At k = {K}\n\nThe threshold of SAELens' BatchTopK SAEs is set to L0 {K} on "
        f"calibration activations, as ours.\n\n{_markdown(table)}"
    )


def _best(table: Any) -> dict[tuple[str, str], str]:
    """SAELens' rate of the lowest mean FVU, by activations and architecture."""
    peers = table[table["library"] == "SAELens"]
    mean = peers.groupby(["activations", "architecture", "lr"])["fvu"].mean()
    return {
        (activations, architecture): f"SAELens, lr {of.idxmin()[2]:g}"
        for (activations, architecture), of in mean.groupby(level=[0, 1])
    }


def _same_l0(table: Any) -> str:
    """A row per learning rate of SAELens: ours was asked for the L0 that came of it."""
    shown = table[[("k" not in OURS[name]) for name in table["architecture"]]]
    shown = shown.assign(found=[_found(row) for row in shown.itertuples()])
    by = ["activations", "architecture", "beside"]
    wide = shown.groupby([*by, "library"], sort=False)["found"].agg("; ".join)
    table = wide.unstack("library", sort=False).fillna("–").reset_index()
    table = table.rename(columns={"beside": "lr of SAELens"})
    return (
        "## At the L0 of SAELens\n\nWhere a penalty sets the sparsity, ours was asked for the L0 "
        "that SAELens came to at each rate.\n\n"
        f"{_markdown(table)}{_intervals(shown)}"
    )


def _intervals(shown: Any) -> str:
    """Ours less SAELens' FVU where three seeds of both or more came to one L0."""
    lines = []
    for (activations, architecture, rate), rows in shown.groupby(
        ["activations", "architecture", "beside"], sort=False
    ):
        ours, peers = (
            rows.loc[rows["library"] == library, "fvu"] for library in ("sae-repro", "SAELens")
        )
        if min(len(ours), len(peers)) >= SEEDS_OF_AN_INTERVAL:
            found = ttest_ind(ours, peers, equal_var=False)
            low, high = found.confidence_interval()
            lines.append(
                f"- {activations}, {architecture}, SAELens at {rate}: FVU of ours less that of "
                f"SAELens {ours.mean() - peers.mean():+.4f} [{low:+.4f}, {high:+.4f}] (Welch, 95 "
                f"%; {len(ours)} and {len(peers)} seeds)"
            )
    return "\n\n" + "\n".join(lines) if lines else ""


def _way(row: Any) -> str:
    return row.library if row.library == "sae-repro" else f"{row.library}, lr {float(row.lr):g}"


def _found(row: Any) -> str:
    return f"{row.fvu:.4f} ({row.l0:.1f}, {row.silent:.0%})"


def _tried(table: Any) -> str:
    columns = ["activations", "architecture", "normalisation", "change", "seed", "fvu", "l0",
               "silent", "n"]  # fmt: skip
    return (
        "## What was tried\n\nOurs with changes of the defaults, at the L0 that `OURS` of "
        "benchmarks/defaults.py asks for or the change says; {} is none. silent: latents that fire "
        "on none of the n validation activations. Rows of normalisation none were measured when "
        "that was the default, those of the root study on activations of an earlier subject; where "
        "their change names no tokens, one pass over a million training activations.\n\n"
        + _markdown(table[columns])
    )


def _markdown(table: Any) -> str:
    return str(table.to_markdown(index=False, disable_numparse=True))
