"""The whole pipeline: which stages run after a change, and the same bits after any failure."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from sae_repro.contents import CONTENTS
from sae_repro.readers.documents import TokenDocuments
from sae_repro.verify import Verdict, verify

from .conftest import Checkout

CELLS = ("vanilla", "resample", "matryoshka")


def same(ours: Checkout, theirs: Checkout) -> Verdict:
    return verify(ours.folder, theirs.folder)


def test_a_fresh_checkout_ends_with_tables(finished: Checkout) -> None:
    cells = pd.read_csv(finished.folder / "reports/tables/cells.csv")
    assert cells["cell"].tolist() == list(CELLS)
    assert (cells["status"] == "ok").all()
    assert cells["fvu"].between(0, 1).all()
    assert cells["tokens"].eq(4000).all()
    for name in CELLS:
        assert (finished.folder / "artifacts/train" / name / "sae_weights.safetensors").is_file()
        latents = pd.read_parquet(
            finished.folder / "artifacts/evaluate" / name / "monosemantic.parquet"
        )
        assert len(latents) == 64
        metrics = json.loads(
            (finished.folder / "artifacts/evaluate" / name / "metrics.json").read_text()
        )["metrics"]
        assert {"coverage", "description_length", "mean_max_correlation_10", "ablation_sparsity",
                "explainability_ngram_recall"} <= set(metrics)  # fmt: skip
        judged = json.loads((finished.folder / f"artifacts/judge/{name}.json").read_text())
        assert judged["rates"]["uniform"]["answered"] == 10
        assert judged["scores"]["fuzzing"]["positives"] > 0
    assert "another model" in (finished.folder / "reports/tables/judged.md").read_text()
    assert (finished.folder / "reports/figures/frontier.svg").is_file()
    assert set(json.loads((finished.folder / "reports/metrics.json").read_text())) == set(CELLS)


def test_a_second_repro_runs_nothing(finished: Checkout) -> None:
    assert finished.ran(finished.repro()) == []


def test_dvc_metrics_and_plots_read_the_reports(finished: Checkout) -> None:
    for command in (["metrics", "show"], ["plots", "show", "--json"]):
        done = subprocess.run(
            ["dvc", *command], cwd=finished.folder, env=finished.environment(),
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "fvu" in done.stdout


@pytest.mark.slow
def test_dvc_diff_shows_changes_since_a_commit(finished: Checkout, tmp_path: Path) -> None:
    checkout = finished.copy(tmp_path / "diff")
    path = checkout.folder / "reports/metrics/vanilla.json"
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "add", "-A"], cwd=checkout.folder, check=True)
    subprocess.run(["git", *identity, "commit", "-qm", "results"], cwd=checkout.folder, check=True)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fvu": 0.5}))
    done = {
        what: subprocess.run(
            ["dvc", what, "diff", *more], cwd=checkout.folder, env=checkout.environment(),
            capture_output=True, text=True,
        )
        for what, more in (("metrics", ["--json"]), ("plots", ["--json"]))
    }  # fmt: skip
    assert all(process.returncode == 0 for process in done.values())
    changed = json.loads(done["metrics"].stdout)["reports/metrics/vanilla.json"]
    assert changed["fvu"]["new"] == 0.5
    assert "frontier" in done["plots"].stdout


def test_clean_cross_entropy_is_what_transformers_alone_computes(finished: Checkout) -> None:
    artifacts = finished.folder / "artifacts"
    corpus = TokenDocuments.load(artifacts / "corpus")
    model = AutoModelForCausalLM.from_pretrained(artifacts / "subject").eval()
    total, targets, tokens = 0.0, 0, 0
    for number in corpus.split("validation"):
        document = torch.from_numpy(corpus.document(int(number)).astype("int64"))
        for part in document.split(31):  # rows of BOS and 31 tokens
            row = torch.cat([torch.tensor([1]), part])[None]
            with torch.no_grad():
                logits = model(row).logits[0, 1:-1]
            total += float(torch.nn.functional.cross_entropy(logits, row[0, 2:], reduction="sum"))
            targets += len(part) - 1
            tokens += len(part)
            if tokens >= 1000:
                break
        if tokens >= 1000:
            break
    measured = json.loads((artifacts / "evaluate/vanilla/metrics.json").read_text())
    assert measured["counts"]["fidelity_tokens"] == targets
    assert measured["metrics"]["ce_clean"] == pytest.approx(total / targets, rel=1e-5)


def test_one_changed_lambda_retrains_one_cell(finished: Checkout, tmp_path: Path) -> None:
    checkout = finished.copy(tmp_path / "changed")
    trained = checkout.trained()
    checkout.change("lambda: 1e-2", "lambda: 2e-2")
    output = checkout.repro()
    assert len(checkout.trained() - trained) == 1
    assert checkout.ran(output) == ["train", "evaluate", "judge", "compare", "report", "track"]
    for line in (
        "train: 1 to make, 2 unchanged of 3 SAEs",
        r"train: vanilla: 936 steps, last batch L0 \S+, FVU \S+, \S+ s",
        "evaluate: 1 to make, 2 unchanged of 3 SAEs",
        r"evaluate: reference of 10 latents on blocks\.0\.hook_resid_post, \S+ s",
        r"evaluate: vanilla: L0 \S+, FVU \S+, dead \S+, \S+ s",
        "compare: 3 cells",
        "compare: tables and findings in reports/tables, figures in reports/figures",
    ):
        assert re.search(f"^{line}$", output, re.M), line
    assert "is empty" not in output, "the record of a judge that asked nobody"
    checkout.change("lambda: 2e-2", "lambda: 1e-2")
    trained = checkout.trained()
    checkout.repro()
    assert checkout.trained() == trained
    assert same(checkout, finished).differences == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "line", "stages"),
    [
        (
            "requirements.lock",
            "# another byte\n",
            {
                "corpus",
                "subject",
                "extract",
                "train",
                "evaluate",
                "judge",
                "control",
                "compare",
                "report",
            },
        ),
        (
            "src/sae_repro/readers/shards.py",
            "CHANGED = True\n",
            {"corpus", "extract", "train", "evaluate", "judge", "control"},
        ),
    ],
)
def test_stages_are_stale_after_a_change_of_code_or_versions_they_depend_on(
    finished: Checkout, tmp_path: Path, changed: str, line: str, stages: set[str]
) -> None:
    checkout = finished.copy(tmp_path / "changed")
    path = checkout.folder / changed
    path.write_text(path.read_text() + line)
    checkout.repro("code/dvc.yaml")
    code, status = checkout.command("dvc", "status", "--json", "dvc.yaml")
    assert code == 0, status
    stale = {stage for stage, why in json.loads(status).items() if "changed deps" in str(why)}
    assert stages <= stale
    assert changed == "requirements.lock" or "track" not in stale


@pytest.mark.slow
def test_a_removed_cell_leaves_no_trace(finished: Checkout, tmp_path: Path) -> None:
    checkout = finished.copy(tmp_path / "removed")
    text = (checkout.folder / "params.yaml").read_text()
    checkout.change(text[text.index("  resample:") : text.index("  matryoshka:")], "")
    assert checkout.ran(checkout.repro()) == [
        "train", "evaluate", "judge", "compare", "report", "track",
    ]  # fmt: skip
    assert sorted(p.name for p in (checkout.folder / "artifacts/train").iterdir()) == [
        CONTENTS, "matryoshka", "vanilla",
    ]  # fmt: skip
    assert checkout.ran(checkout.repro()) == []


@pytest.mark.slow
def test_without_the_store_one_change_trains_one_cell(finished: Checkout, tmp_path: Path) -> None:
    """As after clone and pull: outs are there, the local store is not."""
    checkout = finished.copy(tmp_path / "pulled", ".sae-repro")
    checkout.change("lambda: 1e-2", "lambda: 3e-2")
    checkout.repro("train")
    assert len(checkout.trained()) == 1


@pytest.mark.slow
def test_without_the_store_one_change_evaluates_one_cell(
    finished: Checkout, tmp_path: Path
) -> None:
    """Results in artifacts/evaluate are kept for cells whose SAE is the same."""
    checkout = finished.copy(tmp_path / "pulled", ".sae-repro")
    checkout.change("lambda: 1e-2", "lambda: 3e-2")
    checkout.repro("evaluate")
    assert len(checkout.evaluated()) == 1
    measured = [
        json.loads((each.folder / f"artifacts/evaluate/{name}/metrics.json").read_text())
        for each in (finished, checkout)
        for name in CELLS
    ]
    before, after = measured[: len(CELLS)], measured[len(CELLS) :]
    changed = [a != b for a, b in zip(before, after, strict=True)]
    assert dict(zip(CELLS, changed, strict=True)) == {name: name == "vanilla" for name in CELLS}


@pytest.mark.slow
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    "file", ["train/vanilla/sae_weights.safetensors", "evaluate/resample/contexts.parquet",
             "train/vanilla/train.json"],
)  # fmt: skip
def test_a_damaged_cell_is_made_again_and_the_others_are_kept(
    finished: Checkout, tmp_path: Path, file: str, stored: bool
) -> None:
    checkout = finished.copy(tmp_path / "damaged", *([] if stored else [".sae-repro"]))
    (checkout.folder / "artifacts" / file).write_bytes(b"{")
    checkout.repro()
    assert same(checkout, finished).differences == []
    made = checkout.trained() if file.startswith("train") else checkout.evaluated()
    assert stored or len(made) == 1


def test_a_cell_does_not_depend_on_its_companions(finished: Checkout, tmp_path: Path) -> None:
    checkout = finished.copy(tmp_path / "alone", ".sae-repro")
    shutil.rmtree(checkout.folder / "artifacts/train")
    checkout.repro("-f", "-s", "train", SAE_REPRO_NO_STORE="1", SAE_REPRO_JOBS="1")
    assert not (checkout.folder / ".sae-repro/cells").exists()
    assert same(checkout, finished).differences == []


def test_a_fault_in_params_stops_before_any_compute(finished: Checkout, tmp_path: Path) -> None:
    checkout = finished.copy(tmp_path / "fault")
    checkout.change("k: 3", "k: 3, penalty: l1, lambda: 1")
    checkout.change("seed: 0", "seed: 1")  # all has to run again: the first stage refuses
    process = checkout.start()
    output, _ = process.communicate()
    assert process.returncode != 0
    assert checkout.ran(output) == ["corpus"]
    assert "corpus: params.yaml: cells.matryoshka: k already sets the sparsity" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_the_same_bits(
    fresh: Checkout, finished: Checkout, tmp_path: Path
) -> None:
    """kill -9 at random moments, in turn the whole group and DVC alone, whose stage lives on."""
    checkout = fresh.copy(tmp_path / "killed")
    rng = random.Random(20)
    for number in range(10):
        process = checkout.start()
        try:
            process.wait(timeout=rng.uniform(0.3, 12))
        except subprocess.TimeoutExpired:
            if number % 2:
                os.kill(process.pid, signal.SIGKILL)
            else:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        process.wait()
        checkout.drop_broken_locks()
    checkout.repro()
    assert same(checkout, finished).differences == []


@pytest.mark.slow
def test_two_concurrent_runs_corrupt_no_file(
    fresh: Checkout, finished: Checkout, tmp_path: Path
) -> None:
    checkout = fresh.copy(tmp_path / "twice")
    first = checkout.start()
    time.sleep(3)
    second = checkout.start()
    for process in (first, second):
        process.communicate()
    checkout.repro()
    assert same(checkout, finished).differences == []


@pytest.mark.slow
def test_a_closed_mlflow_port_does_not_fail_the_pipeline(
    finished: Checkout, tmp_path: Path
) -> None:
    checkout = finished.copy(tmp_path / "offline")
    output = checkout.repro(
        *("-f", "-s", "train", "track"),
        MLFLOW_TRACKING_URI="http://127.0.0.1:9", SAE_REPRO_NO_STORE="1",
    )  # fmt: skip
    assert checkout.ran(output) == ["train", "track"]
    assert output.count("track: warning:") == 1
    assert "Traceback" not in output
    assert same(checkout, finished).differences == []
