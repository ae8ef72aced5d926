"""The benchmarks run, and do what their names say; how fast, no test asks."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_every_step_is_timed_on_the_same_batches(of: Any, tmp_path: Path) -> None:
    steps, shape = of("steps"), of("shapes").Shape(8, 64, 100, 2)
    store = of("shapes").store_of(of("shapes").activations(shape), tmp_path)
    every = {
        name: steps.step_of(name, choices, shape, store)
        for group in steps.GROUPS.values()
        for name, choices in group.items()
    }
    batches = steps.batches_of(store, shape)
    assert [tuple(batch.shape) for batch in batches] == [(100, 8)] * 8
    seen: dict[str, list[torch.Tensor]] = {}

    def watched(name: str) -> Any:
        def step(batch: torch.Tensor) -> None:
            seen.setdefault(name, []).append(batch)
            every[name](batch)

        return step

    rounds = of("rounds").Rounds(
        {steps.GEMM: steps.gemm(shape), **{name: watched(name) for name in every}}, batches
    )
    for _ in range(4):
        rounds.turn()
    assert all(a is b for each in seen.values() for a, b in zip(each, batches, strict=False))
    rows = {row["step"]: row for row in rounds.rows()}
    assert [*rows] == [steps.GEMM, *every] and rows[steps.GEMM]["ratio"] == 1
    assert all(row["n"] == 2 and row["ms_q1"] <= row["ms"] <= row["ms_q3"] for row in rows.values())


def test_the_sparse_and_the_dead_are(of: Any, tmp_path: Path) -> None:
    steps, shape = of("steps"), of("shapes").Shape(8, 80, 100, 2)
    store = of("shapes").store_of(of("shapes").activations(shape), tmp_path)
    batch = steps.batches_of(store, shape)[0]

    def made(name: str, choices: Any) -> tuple[Any, torch.Tensor]:
        """(a trainer, its pre-activations of a batch)."""
        trainer = steps.trainer_of(name, choices, shape, store)
        weights = trainer.weights
        with torch.no_grad():
            return trainer, (batch - weights.b_dec) @ weights.W_enc + weights.b_enc

    sparse, revived = "ReLU, density 1 %", "TopK + AuxK, 10 % dead"
    _, u_nk = made(sparse, steps.DENSE[sparse])
    assert 0 < (u_nk > 0).float().mean() < 0.03
    trainer, u_nk = made(revived, steps.SPARSE[revived])
    dead_k = trainer.silent_k >= trainer.cell.dead_tokens
    assert dead_k.nonzero().flatten().tolist() == [*range(8)]
    assert u_nk.topk(shape.k, dim=1).indices.min() >= 8, "they stay dead"
    assert (u_nk[:, :8] > 0).any(), "and have something to learn"


def test_targets_are_computed_from_the_tables(of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = of("targets")
    tables = {
        "steps": pd.DataFrame(
            [("S", "sparse", "TopK", 2.0), ("S", "sparse", "BatchTopK", 2.2),
             ("S", "sparse", targets.GEMM, 1.0), ("S", "dense", targets.GEMM, 1.2),
             ("S", "dense", "ReLU, dense", 7.2)],
            columns=["size", "group", "step", "ms"],
        ).assign(bits="portable"),
        "peers": pd.DataFrame(
            [("S", "TopK", "sae-repro", 1.0), ("S", "TopK", "sparsify", 2.0),
             ("S", "TopK", "SAELens", 4.0)],
            columns=["size", "group", "library", "ms"],
        ).assign(bits="native", step="TopK"),
    }  # fmt: skip
    monkeypatch.setattr(targets, "read", tables.__getitem__)
    assert [*targets.lines()] == [
        "S: BatchTopK / TopK: 1.10, at most 1.15: met",
        "S: ReLU, dense / x·W_enc: 6.00, at most 5.5: MISSED",
        "S: TopK / sparsify, native: 0.50, at most 0.55: met",
        "S: TopK / SAELens, native: 0.25, at most 0.22: MISSED",
    ]


def test_rows_are_kept_until_they_are_measured_anew(
    of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = of("tables")
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    tables.renew("t", [{"size": "S", "bits": "x", "ms": 1}, {"size": "M", "bits": "x", "ms": 2}],
                 ["size", "bits"])  # fmt: skip
    again = tables.renew("t", [{"size": "M", "bits": "x", "ms": 3}], ["size", "bits"])
    assert again["ms"].tolist() == [1, 3] == tables.read("t")["ms"].tolist()


def test_defaults_of_both_libraries_are_measured_at_one_l0(
    of: Any, make_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults, folder = of("defaults"), make_store()
    monkeypatch.setattr(of("tables"), "FOLDER", tmp_path / "tables")
    (tmp_path / "tables").mkdir()
    for name, value in {"K": 2, "SEEDS": (0,), "RATES": (1e-3, 3e-3)}.items():
        monkeypatch.setattr(defaults, name, value)

    def measure(*arguments: str) -> None:
        sizes = ("--tokens", "3000", "--batch", "64")
        defaults.main(defaults.asked([*sizes, *arguments, f"small={folder}"]))

    ours = {name: defaults.OURS[name] for name in ("BatchTopK", "ReLU + L1")}
    ours["BatchTopK"] = ours["BatchTopK"] | {"k": 2}
    monkeypatch.setattr(defaults, "OURS", ours)
    measure()
    rows = {
        (row.architecture, row.library, row.beside): row for row in _table(tmp_path, "defaults")
    }
    assert len(rows) == 3 + 4, "ours once at k, and at the L0 of each of SAELens' rates"
    for (architecture, library, beside), row in rows.items():
        if architecture == "BatchTopK":
            assert row.l0 == pytest.approx(2, abs=0.4)
        elif library == "sae-repro":
            assert row.l0 == pytest.approx(rows[architecture, "SAELens", beside].l0, rel=0.5)
    one = next(row for row in rows.values() if row.library == "sae-repro")
    assert (one.architecture, one.lr) == ("BatchTopK", pytest.approx(0.08 / 8**0.5))
    monkeypatch.setattr(defaults, "OURS", {"BatchTopK": ours["BatchTopK"]})
    measure("--tried", '{"lr": 1e-4}')
    (slow,) = _table(tmp_path, "defaults_tried")
    assert slow.fvu > one.fvu
    page = (tmp_path / "tables/defaults.md").read_text(encoding="utf-8")
    best = min(
        row.fvu
        for (name, library, _), row in rows.items()
        if (name, library) == ("BatchTopK", "SAELens")
    )
    assert str(slow.fvu) in page and f"**{best:.4f}" in page


def test_three_seeds_of_both_libraries_give_an_interval(of: Any) -> None:
    def rows(of_ours: tuple[float, ...], of_peers: tuple[float, ...]) -> pd.DataFrame:
        both = [("sae-repro", fvu) for fvu in of_ours] + [("SAELens", fvu) for fvu in of_peers]
        named = {"activations": "small", "architecture": "gated", "beside": "0.01"}
        return pd.DataFrame([{**named, "library": library, "fvu": fvu} for library, fvu in both])

    intervals = of("defaults_page")._intervals
    # t of 4 degrees of freedom is 2.776, the standard error .01·√(2/3)
    assert "+0.0300 [+0.0073, +0.0527]" in intervals(rows((0.22, 0.23, 0.24), (0.19, 0.2, 0.21)))
    assert intervals(rows((0.22, 0.23), (0.19, 0.2, 0.21))) == ""


def test_fidelity_of_a_spliced_identity_is_whole_and_of_zero_none(of: Any, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from sae_repro.corpus.tokenizers import word_level
    from sae_repro.evaluate.fidelity import Untouched, Windows
    from sae_repro.readers.subject import load_subject

    config = GPT2Config(vocab_size=23, n_positions=12, n_embd=16, n_layer=2, n_head=2,
                        initializer_range=0.3, bos_token_id=1, eos_token_id=1)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(tmp_path)
        tokens = torch.randint(3, 23, (20, 12)).numpy().astype(np.int32)
    word_level([chr(97 + i) for i in range(20)]).save_pretrained(tmp_path)
    arrays = {"tokens": tokens, "mask": np.ones((20, 12), dtype=bool),
              "length": np.full((20, 1), 12, dtype=np.int32),
              "document": np.arange(20, dtype=np.int32)[:, None] // 2}  # fmt: skip
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    hook = "blocks.0.hook_resid_post"
    untouched = Untouched.of(load_subject(tmp_path), Windows(tmp_path, 10_000), hook)

    def scaled(by: float) -> Any:
        return SimpleNamespace(encode=lambda x_nd: x_nd * by, decode=lambda z_nk: z_nk)

    whole, most, none = of("spliced").spliced(untouched, [scaled(1.0), scaled(0.5), scaled(0.0)])
    assert (whole["ce_recovered"], whole["kl"], none["ce_recovered"]) == (1, 0, 0)
    assert none["ce_spliced"] == none["ce_zero"] and 0 < most["kl"] < none["kl"]
    assert (whole["targets"], whole["documents"]) == (20 * 11, 10)


def test_fidelity_beside_saelens_is_a_difference_with_its_interval(
    of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = of("tables")
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    sizes = {"activations": "small", "architecture": "TopK", "expansion": 4, "tokens": 9,
             "batch": 3, "l0": 16.0, "ce_clean": 1.0, "ce_zero": 3.0, "targets": 7, "documents": 2,
             "fvu": 0.5, "kl": 0.25, "lr": 3e-3}  # fmt: skip
    of_ours, of_peers = (0.92, 0.93, 0.94), (0.89, 0.90, 0.91)
    rows = [
        {**sizes, "library": library, "seed": seed, "ce_recovered": value,
         **tables.machine_of("portable")}
        for library, values in (("sae-repro", of_ours), ("SAELens", of_peers))
        for seed, value in enumerate(values)
    ]  # fmt: skip
    tables.renew("spliced", rows, of("spliced").KEY)
    of("spliced").report()
    page = (tmp_path / "spliced.md").read_text(encoding="utf-8")
    # t of 4 degrees of freedom is 2.776, the standard error .01·√(2/3)
    assert "| 0.930 " in page and "+0.030 [+0.007, +0.053]" in page


def _table(tmp_path: Path, name: str) -> list[Any]:
    return [*pd.read_csv(tmp_path / f"tables/{name}.csv").itertuples()]


def test_throughput_is_told_of_medians_over_one_process_and_over_one_node(of: Any) -> None:
    from sae_repro.params import parse
    from sae_repro.params.cell import saes_by_name

    two_nodes = of("two_nodes")
    study = parse(two_nodes.declared("0" * 64))
    assert len(saes_by_name(study.cells)) == 12
    seconds = {"one process": (40, 44, 42), "two processes": (24, 21, 20),
               "Ray, one node": (60, 50), "Ray, two nodes": (30, 25)}  # fmt: skip
    runs = [
        two_nodes.Run(way, n, 2.0 * n, 0.0, 0.0, "") for way, each in seconds.items() for n in each
    ]
    rows = [line.split(" | ") for line in two_nodes.table(runs).splitlines()[2:]]
    assert [row[0].strip("| ") for row in rows] == [*two_nodes.WAYS] == [*seconds]
    assert [row[-1].strip(" |") for row in rows] == ["", "2.00", "", "2.00"]
    assert rows[1][2:4] == ["21.0 (24.0, 21.0, 20.0)", "42.0"]


STAGES = """\
stages:
  work: {{cmd: {python} burn.py, deps: [burn.py], outs: [made]}}
  wait: {{cmd: {python} wait.py, deps: [made], outs: [waited]}}
"""


def test_the_costs_of_stages_are_those_of_one_run(
    of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    burn = "import time\nwhile time.process_time() < 2: pass\nopen('made', 'w').close()\n"
    (tmp_path / "burn.py").write_text(burn)
    wait = "import time\ntime.sleep(1.5)\nopen('waited', 'w').close()\n"
    (tmp_path / "wait.py").write_text(wait)
    (tmp_path / "dvc.yaml").write_text(STAGES.format(python=sys.executable))
    module = of("stage_costs")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    run = module.Run("dvc.yaml")
    assert run.follow() == 0
    starting, work, waiting = run.costs
    assert [work.stage, waiting.stage] == ["work", "wait"]
    # what a stage did is its own, whatever else the machine does
    assert work.cpu > max(1.9, waiting.cpu) and waiting.wall > 1.5
    assert starting.cpu > 0 and waiting.peak > 1
    (tmp_path / "burn.py").write_text("exit(3)")
    with pytest.raises(SystemExit, match=r"work failed: dvc repro dvc\.yaml says why"):
        module.main("dvc.yaml")
