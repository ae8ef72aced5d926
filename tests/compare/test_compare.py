"""From cells' results to tables: known numbers in, known numbers out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.cellstore import prune
from sae_repro.compare.collect import Result, collect
from sae_repro.compare.curves import write_curves
from sae_repro.compare.figures import write_figures
from sae_repro.compare.frontier import frontiers
from sae_repro.compare.grid import dead_table, grid_of, published_table, write_grid
from sae_repro.compare.matched import matched
from sae_repro.compare.report import write_index, write_verdicts
from sae_repro.compare.resampled import bootstrap
from sae_repro.compare.tables import headline, write_cells
from sae_repro.files import sha256_folder
from sae_repro.numerics.intervals import wilson
from sae_repro.numerics.random import generator
from sae_repro.params import Cell, Compare

N_DOCUMENTS, PER = 60, 50  # of the cells that `write` makes


def vanilla(x: float, lam: float, **more: Any) -> Cell:
    return Cell(expansion=x, penalty="l1", lambda_=lam, **more)


def topk(k: int, **more: Any) -> Cell:
    return Cell(expansion=8, activation="topk", k=k, revival="auxk", dead_tokens=9, **more)


def test_the_grid_is_laid_out_as_published(write: Callable[..., Result]) -> None:
    results = [
        write("a", vanilla(4, 1e-2), dead=64),
        write("b", vanilla(4, 1e-2, revival="resample"), dead=10),
        write("c", vanilla(8, 1e-2), dead=2),
        write("d", vanilla(8, 1e-2, revival="resample_published"), dead=1),
        write("e", vanilla(4, 1e-4), dead=0),
        write("f", topk(4), dead=99),
    ]
    long, wide = dead_table(results, "dead_fraction_never")
    low, high = wilson(64, 256)
    assert wide.to_dict("records") == [
        {"": "no resampling", "λ": "0.01", "4×": f"0.250 [{low:.3f}, {high:.3f}]",
         "8×": "0.00391 [0.00107, 0.0141]"},
        {"": "no resampling", "λ": "0.0001", "4×": "0 [0, 0.0148]", "8×": "—"},
        {"": "resampling", "λ": "0.01", "4×": "0.0391 [0.0214, 0.0704]",
         "8×": "0.00195 [0.000345, 0.0110]"},
        {"": "resampling", "λ": "0.0001", "4×": "—", "8×": "—"},
        {"": "difference", "λ": "0.01", "4×": "-0.211 (one seed)", "8×": "-0.00195 (one seed)"},
        {"": "difference", "λ": "0.0001", "4×": "—", "8×": "—"},
    ]  # fmt: skip
    assert len(long) == 8
    assert long["dead"].isna().sum() == 3


def test_only_plain_vanilla_cells_are_in_the_grid(write: Callable[..., Result]) -> None:
    results = [
        write("a", vanilla(4, 1e-2)),
        write("b", vanilla(4, 1e-2, prefixes="fixed")),
        write("c", vanilla(4, 1e-2, revival="auxk", dead_tokens=9)),
        write("d", vanilla(8, 1e-2, hook="blocks.1.hook_mlp_out")),
        write("e", vanilla(16, 1e-2), status="failed"),
    ]
    assert [r.name for r in grid_of(results).values()] == ["a"]


def test_published_numbers_stand_beside_ours(write: Callable[..., Result]) -> None:
    frame = published_table([write("a", vanilla(8, 1e-2, revival="resample"), dead=128)])
    assert len(frame) == 16
    row = frame[(frame["block"] == "resampling") & (frame["lambda"] == 0.01)
                & (frame["expansion"] == 8)].iloc[0]  # fmt: skip
    assert row["published_gpt2_dead"] == 0.039
    assert row["published_gpt2_monosemantic"] == 0.78
    assert row["this_study_dead"] == 0.25
    assert frame["this_study_cell"].notna().sum() == 1


def test_frontiers_mix_no_hooks_widths_or_choices(write: Callable[..., Result]) -> None:
    results = [
        write("a", topk(4)), write("b", topk(8)), write("c", topk(8, hook="blocks.1.hook_mlp_out")),
        write("d", Cell(expansion=4, activation="topk", k=4, revival="auxk", dead_tokens=9)),
        write("e", Cell(expansion=8, activation="topk", k=4)),
        write("f", Cell(expansion=8, activation="batchtopk", k=4, prefixes="random")),
        write("g", Cell(expansion=8, activation="topk", k=4, prefixes="random")),
        write("h", vanilla(8, 1e-2)), write("i", vanilla(8, 1e-2, revival="resample")),
    ]  # fmt: skip
    groups = [[r.name for r in f.cells] for f in frontiers(results)]
    assert sorted(map(len, groups), reverse=True) == [2] + [1] * 7
    assert {r.architecture for r in results} == {
        "topk", "topk without revival", "matryoshka-random without revival",
        "matryoshka-random over topk without revival", "vanilla", "vanilla + resampling",
    }  # fmt: skip


def test_orphans_are_pruned_and_cells_come_from_params(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    write("kept", topk(4))
    write("gone", topk(8))
    assert [p.name for p in prune({"kept"}, tmp_path / "artifacts/train")] == ["gone"]
    assert not (tmp_path / "artifacts/train/gone").exists()
    results = collect({"kept": topk(4)}, tmp_path / "artifacts")
    assert [r.name for r in results] == ["kept"]


def everything(folder: Path, results: list[Result]) -> Path:
    (folder / "tables").mkdir(parents=True)
    (folder / "figures").mkdir()
    write_cells(folder / "tables", results, 0)
    write_grid(folder / "tables", results, 0)
    write_verdicts(folder / "tables", results, Compare(matched_l0=(12.0,), bootstrap=100), 0)
    write_index(folder / "tables")
    write_figures(folder / "figures", results, (12.0,))
    write_curves(folder / "figures", results)
    return folder


def test_reports_are_the_same_bytes_again_and_failures_are_shown(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    results = [
        write("a", vanilla(4, 1e-2), l0=20.0, dead=5),
        write("b", vanilla(4, 1e-4), l0=9.0, fidelity=False),
        write("c", topk(4), l0=8.0), write("d", topk(8), l0=16.0),
        write("e", topk(16), status="failed"),
    ]  # fmt: skip
    one, two = everything(tmp_path / "one", results), everything(tmp_path / "two", results)
    assert sha256_folder(one) == sha256_folder(two)
    cells = pd.read_csv(one / "tables/cells.csv")
    assert cells["cell"].tolist() == ["a", "b", "c", "d", "e"]
    assert cells["status"].tolist()[-1] == "failed"
    assert cells["latents"].tolist()[:2] == [256, 256]
    assert cells.columns[-4:].tolist() == ["parameters", "flops_per_step", "remarks", "reason"]
    # batches of 32, D 64, K 256: dense, and of 4 active latents
    assert cells["parameters"].tolist()[0] == 2 * 64 * 256 + 256 + 64
    assert cells["flops_per_step"].tolist()[0] == 10 * 32 * 64 * 256
    assert cells["flops_per_step"].tolist()[2] == 2 * 32 * 64 * (512 + 4 * 4)
    text = (one / "tables/cells.md").read_text()
    assert "**Failed:** e: the loss is not finite from step 7 on" in text
    assert "3,000 held-out tokens of 60 documents" in text
    assert {p.suffix for p in (one / "figures").iterdir()} == {".png", ".svg", ".pdf"}
    assert (one / "tables/matched_l0.tex").is_file()
    for name in (one / "tables/README.md").read_text().split("](")[1:]:
        assert (one / "tables" / name.partition(")")[0]).is_file()


def test_rows_of_given_activations_are_not_called_tokens(
    write: Callable[..., Result], write_seeds: Callable[..., Result], tmp_path: Path
) -> None:
    cell = Cell(expansion=4, activation="topk", k=4, hook="activations", seeds=(0, 1))
    text = []
    for hook in ("activations", "blocks.1.hook_resid_post"):
        results = [write_seeds(hook, cell.model_copy(update={"hook": hook}), [{}, {}])]
        text.append((everything(tmp_path / "r" / hook, results) / "tables/cells.md").read_text())
    assert "Measured on 3,000 held-out rows of 60 documents" in text[0]
    assert "Measured on 3,000 held-out tokens of 60 documents" in text[1]


def test_a_study_in_which_everything_failed_still_has_its_table(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    folder = everything(tmp_path / "r", [write("a", topk(4), status="failed")])
    assert "failed" in (folder / "tables/cells.csv").read_text()
    assert "No cell finished" in (folder / "tables/matched_l0.md").read_text()


def gated_trained(penalty: str) -> Cell:
    return Cell(expansion=8, activation="gated", gated_auxiliary="trained", decoder="free",
                penalty=penalty, lambda_=1)  # fmt: skip


def test_an_architecture_is_named_by_what_differs_from_the_usual() -> None:
    jumprelu = {"expansion": 8, "activation": "jumprelu", "lambda": 1e-3}
    named = {
        "vanilla": vanilla(8, 1e-2),
        "vanilla (tanh)": Cell(expansion=8, penalty="tanh", **{"lambda": 1}),
        "jumprelu": Cell(**jumprelu, penalty="l0", target_l0=9),
        "jumprelu (l0 quadratic)": Cell(**jumprelu, penalty="l0_quadratic", target_l0=9),
        "gated + auxk": Cell(
            expansion=8, activation="gated", penalty="l1", revival="auxk", **{"lambda": 1}
        ),
        "gated (trained auxiliary)": gated_trained("l1_decoder_norm"),
        "gated (trained auxiliary, tanh)": gated_trained("tanh"),
        "topk": topk(8),
        "topk without revival": Cell(expansion=8, activation="topk", k=8),
        "matryoshka-random over topk": topk(8, prefixes="random"),
        "matryoshka-random-ordered over jumprelu": Cell(
            **jumprelu, penalty="l0", prefixes="random", order="contribution"
        ),
        "vanilla + resampling as published": Cell(
            expansion=8, penalty="l1", decoder="free", revival="resample_published", **{"lambda": 1}
        ),
    }
    for name, cell in named.items():
        assert Result("a", cell, {}, Path(), Path()).architecture == name


def test_target_and_reached_l0_stand_side_by_side(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    asking = Cell(expansion=8, activation="gated", penalty="l1", target_l0=12, **{"lambda": 1e-2})
    results = [write("a", asking, l0=11.7), write("b", topk(8), l0=8.0), write("c", vanilla(8, 1))]
    assert [r.sparsity for r in results] == ["L0 → 12", "k = 8", "λ = 1"]
    folder = everything(tmp_path / "r", results)
    cells = pd.read_csv(folder / "tables/cells.csv").set_index("cell")
    assert cells.loc["a", ["target_l0", "l0"]].tolist() == [12, 11.7]
    assert cells.loc["b", "target_l0"] == 8
    assert np.isnan(cells.loc["c", "target_l0"])


def test_headline_metrics_have_their_interval_beside_them(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    """A metric that has none yet, or a failed cell, leaves blanks."""
    whole = write("a", topk(8), dead=3)
    whole.measured["intervals"]["fvu"] = [0.08, 0.12]
    cells = [whole, write("b", topk(4), fidelity=False), write("c", topk(2), status="failed")]
    folder = everything(tmp_path / "r", cells)
    table = pd.read_csv(folder / "tables/cells.csv").set_index("cell")
    assert table.loc["a", ["fvu_low", "fvu_high"]].tolist() == [0.08, 0.12]
    assert table.loc["a", "dead_fraction_never_high"] == wilson(3, 512)[1]
    assert table.loc[["b", "c"], ["fvu_low", "fvu_high"]].isna().all(axis=None)
    assert table["kl_low"].isna().all() and "monosemantic_fraction_low" not in table
    assert not [name for name in table if name.endswith("_sd")]
    assert "±" not in (folder / "tables/cells.md").read_text()
    entry = headline(whole)
    assert [entry[f"fvu{end}"] for end in ("", "_low", "_high")] == [0.1, 0.08, 0.12]
    assert "kl" in entry and "kl_low" not in entry
    assert "ce_recovered_zero" not in headline(cells[1])


def test_cells_with_several_seeds_show_mean_and_spread(
    write: Callable[..., Result], write_seeds: Callable[..., Result], tmp_path: Path
) -> None:
    several = write_seeds(
        "s", topk(8, seeds=[0, 4]),
        [{"l0": 8.0, "fvu": 0.10, "dead": 3}, {"l0": 8.0, "fvu": 0.12, "dead": 5}],
    )  # fmt: skip
    half = write_seeds("h", topk(4, seeds=[0, 1]), [{"fvu": 0.2}, {"status": "failed"}])
    results = [several, half, write("one", topk(16), l0=16.0)]
    folder = everything(tmp_path / "r", results)
    cells = pd.read_csv(folder / "tables/cells.csv").set_index("cell")
    assert cells.loc["s", ["fvu", "fvu_sd", "seeds"]].tolist() == pytest.approx(
        [0.11, 0.02 / 2**0.5, 2]
    )
    assert cells.loc[["h", "one"], "fvu_sd"].isna().all()
    shown = (folder / "tables/cells.md").read_text()
    assert "s (2 seeds)" in shown and "0.110 ± 0.014" in shown and "h (1 of 2 seeds)" in shown
    assert "seed-1: the loss is not finite from step 7 on" in shown
    text = (folder / "tables/cells.csv").read_text()
    assert ",512," in text and "512.0" not in text  # counts stay whole where a cell lacks one
    seeds = pd.read_csv(folder / "tables/seeds.csv").set_index("cell")
    assert seeds.index.tolist() == ["s/seed-0", "s/seed-4", "h/seed-0", "h/seed-1"]
    assert seeds.loc["s/seed-4", ["fvu", "latents_alive"]].tolist() == [0.12, 507]
    assert "(seeds.md)" in (folder / "tables/README.md").read_text()
    at8 = {m.frontier.cells[0].name: m.seeds for m in matched(results, [8.0], 100, 0)}
    assert at8["s"] == 2 and at8["one"] == 0


def test_documents_are_drawn_by_name(
    write: Callable[..., Result], write_seeds: Callable[..., Result]
) -> None:
    """Another name, or another order of draws, would move every published interval."""
    one = write("a", topk(8), noise=3)
    two = write_seeds("b", topk(4, seeds=[0, 1]), [{"fvu": 0.1, "noise": 4}, {"fvu": 0.2}])
    rng = generator(5, "compare", "bootstrap")
    blocks = [rng.integers(N_DOCUMENTS, size=(n, N_DOCUMENTS), dtype="u1") for n in (64, 64, 64, 8)]
    draws = [np.bincount(units, minlength=N_DOCUMENTS) for block in blocks for units in block]
    documents = np.array(draws)
    drawn = bootstrap([one, two], 200, 5)
    assert set(drawn) == {"a", "b/seed-0", "b/seed-1"}
    for sae in (one, *two.saes):
        fvu = documents @ sae.documents["squared_error"] / (N_DOCUMENTS * PER)
        assert drawn[sae.name]["fvu"] == pytest.approx(fvu, rel=1e-12)


def test_seeds_that_lie_apart_are_not_called_different(
    write: Callable[..., Result], write_seeds: Callable[..., Result]
) -> None:
    """The same share of dead latents, once in every seed and once all in one of three."""

    def grid(name: str, dead: tuple[int, int, int], *, several: bool = True) -> str:
        resample = {"revival": "resample"} | ({"seeds": [0, 1, 2]} if several else {})
        other = f"{name}-resample", vanilla(4, 1e-2, **resample)
        results = [
            write_seeds(name, vanilla(4, 1e-2, seeds=[0, 1, 2]), [{"dead": d} for d in dead]),
            write_seeds(*other, [{"dead": d} for d in (1, 2, 3)]) if several
            else write(*other, dead=2),
        ]  # fmt: skip
        _, wide = dead_table(results, "dead_fraction_never")
        return str(wide["4×"].iloc[-1])

    assert "(" not in grid("even", (19, 20, 21))
    assert grid("uneven", (60, 0, 0)).endswith("(not distinguishable)")
    assert grid("single", (19, 20, 21), several=False).endswith("(one seed)")


def test_negative_controls_stand_in_the_tables_and_on_no_frontier(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    untrained = Cell(expansion=8, baseline="untrained", activation="topk", k=8)
    random = {"hook": "untrained/blocks.1.hook_resid_post"}
    results = [
        write("random-vanilla", vanilla(4, 1e-2, **random), fidelity=False),
        write("neurons", Cell(baseline="neurons")), write("pca", Cell(baseline="pca")),
        write("untrained", untrained), write("random", topk(8, **random), fidelity=False),
        write("relu", Cell(expansion=8, baseline="untrained")),
        write("a", topk(8), l0=8.0), write("b", topk(16), l0=16.0),
        write("c", vanilla(4, 1e-2), dead=3),
    ]  # fmt: skip
    assert [r.architecture for r in results] == [
        "vanilla on random weights", "neurons", "PCA", "untrained topk", "topk on random weights",
        "untrained vanilla", "topk", "topk", "vanilla",
    ]  # fmt: skip
    assert [r.expansion for r in results[1:4]] == [2, 2, 8]
    assert [[r.name for r in f.cells] for f in frontiers(results)] == [["a", "b"], ["c"]]
    assert [r.name for r in grid_of(results).values()] == ["c"]
    folder = everything(tmp_path / "r", results)
    cells = pd.read_csv(folder / "tables/cells.csv")
    assert cells["cell"].tolist() == [r.name for r in results]
    shown = (folder / "tables/cells.md").read_text()
    assert all(f"| {r.name} " in shown for r in results)
    trained = everything(tmp_path / "trained", results[6:])
    for figure in ("frontier", "training_curves", "dead_fraction"):
        files = [f / "figures" / f"{figure}.png" for f in (folder, trained)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_an_imported_cell_stands_under_its_own_architecture(
    write: Callable[..., Result], tmp_path: Path
) -> None:
    theirs = Cell(**{"import": "theirs", "sha256": "0" * 64})
    result = write("theirs", theirs, l0=9.0)
    result.measured["choices"].update(activation="jumprelu", k=None)
    result.measured["d_sae"] = 256
    assert (result.architecture, result.sparsity, result.expansion) == (
        "imported jumprelu",
        "imported",
        4,
    )
    folder = everything(tmp_path / "r", [result, write("b", topk(8))])
    cells = pd.read_csv(folder / "tables/cells.csv").set_index("cell")
    assert cells.loc["theirs", ["activation", "expansion"]].tolist() == ["jumprelu", 4]
