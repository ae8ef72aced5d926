"""The same bits on other processors: a study made here, and made again on emulated ones."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sae_repro.numerics.kernels import CHOSEN, PORTABLE

from .conftest import ROOT, Checkout

RUNNER = Path(__file__).with_name("all_stages.py")
STAGES = ("kernels", "corpus", "subject", "extract", "train", "fewer", "evaluate", "judge",
          "control", "compare", "report", "tune", "samplers")  # fmt: skip
TRAINING = STAGES[: STAGES.index("fewer")]
EMULATED = [
    ("EPYC-Rome", TRAINING),
    ("Haswell", TRAINING),
    ("Skylake-Client", TRAINING),
    pytest.param("EPYC-Rome", STAGES, marks=pytest.mark.slow),
]
"""Processors and the stages they make. Evaluation, and what follows it, take an emulator minutes,
and compute with the kernels of training: one processor makes them."""

PARAMS = """\
root: .
seed: 0
compute: {bits: portable}
corpus:
  {source: {kind: stories, n_documents: 100}, validation: 0.2, calibration: 0.1, tuning: 0.1}
subject:
  source: {kind: train}
  training:
    {d_model: 8, n_layers: 2, n_heads: 2, context: 64, steps: 3, batch_size: 4, threads: 1}
extract:
  hooks: [blocks.0.hook_resid_post]
  untrained_hooks: [blocks.0.hook_resid_post]
  context: 64
  n_tokens: 512
  n_calibration_tokens: 128
  n_tuning_tokens: 128
  n_validation_tokens: 300
  shard_rows: 256
  threads: 1
train: {batch_size: 64, epochs: 1, log_every: 4, checkpoint_every: 100}
evaluate:
  fidelity_tokens: 100
  metrics: [monosemanticity, structure, dictionary, references]
  references: [4]
  structure_tokens: 1000
  top_contexts: 2
  quantiles: 2
  contexts_per_quantile: 1
  context_tokens: 4
judge: {extremes: 2, uniform: 3, latents: 2}
control: {seeds: 1, tree_steps: 1, oracle_steps: 1, revival_steps: 1}
compare: {matched_l0: [3], bootstrap: 100}
report: {}
track: {experiment: small}
recipes:
  auxk: {revival: auxk, dead_tokens: 200, expansion: 2, k: 3}
cells:
  vanilla: {expansion: 2, penalty: l1, lambda: 1e-2, target_l0: 3}
  resample: {expansion: 2, penalty: l1, lambda: 5e-2, revival: resample, resample_every: 4}
  topk: {recipe: auxk, activation: topk}
  batchtopk: {recipe: auxk, activation: batchtopk}
  fixed: {recipe: auxk, activation: batchtopk, prefixes: fixed}
  random: {recipe: auxk, activation: batchtopk, prefixes: random}
  jumprelu:
    {activation: jumprelu, expansion: 2, penalty: l0_quadratic, lambda: 1, jumprelu_bandwidth: 0.1,
     target_l0: 3}
  gated: {activation: gated, expansion: 2, penalty: l1, lambda: 2e-2, target_l0: 3}
  neurons: {baseline: neurons}
  pca: {baseline: pca}
  untrained: {baseline: untrained, activation: topk, expansion: 2, k: 3}
  random-weights: {recipe: auxk, activation: topk, hook: untrained/blocks.0.hook_resid_post}
"""
SPACE = """\
tune:
  trials: 3
  batch: 2
  all: {expansion: {values: [1, 2]}, lr: {low: 1e-3, high: 1e-2, log: true}}
  recipes:
    vanilla: {penalty: l1, lambda: 1e-2}
    topk: {activation: topk, k: {low: 1, high: 3}}
"""


@pytest.fixture(scope="session")
def small(fresh: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A study of every architecture that takes an emulator minutes; nothing has run yet."""
    checkout = fresh.copy(tmp_path_factory.mktemp("portable") / "study")
    (checkout.folder / "params.yaml").write_text(PARAMS)
    (checkout.folder / "tune").mkdir()
    shutil.copy(ROOT / "tune/dvc.yaml", checkout.folder / "tune")
    (checkout.folder / "tune/params.yaml").write_text(SPACE)
    return checkout


@pytest.fixture(scope="session")
def emulator() -> str:
    """The emulator's path; tests are skipped without one, and with one that is itself wrong."""
    path = shutil.which("qemu-x86_64")
    if path is None:
        pytest.skip("no qemu-x86_64 (package qemu-user)")
    sorts = "import numpy as n; x = n.random.rand(5000); assert (n.diff(x[x.argsort()]) >= 0).all()"
    done = subprocess.run([path, "-cpu", "Haswell", sys.executable, "-c", sorts])
    if done.returncode:
        pytest.skip("this qemu-x86_64 sorts wrong: 7.2 does, 10.0 does not")
    return path


@pytest.fixture(scope="session")
def here(small: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The study made by this machine's processor, to its trained cells."""
    checkout = small.copy(tmp_path_factory.mktemp("here") / "study")
    run(checkout, TRAINING)
    return checkout


def run(checkout: Checkout, stages: tuple[str, ...], *emulator: str, unpinned: str = "") -> None:
    """Run stages in one process, behind the words `emulator`; it chooses its own kernels."""
    command = [*emulator, sys.executable, str(RUNNER), *stages]
    inherited = {CHOSEN, *PORTABLE}  # of the process of the tests
    env = {k: v for k, v in checkout.environment().items() if k not in inherited}
    done = subprocess.run(
        command, cwd=checkout.folder, env=env | {"UNPINNED": unpinned},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def results(checkout: Checkout, stages: tuple[str, ...]) -> dict[str, bytes]:
    """Contents of the folders that stages write, in the order of the stages."""
    folders = {"compare": "reports", "report": "reports", "tune": "tune"}
    return {
        path.relative_to(checkout.folder).as_posix(): path.read_bytes()
        for stage in stages
        for path in sorted((checkout.folder / folders.get(stage, f"artifacts/{stage}")).rglob("*"))
        if path.is_file() and not path.name.startswith("journal.log")  # it has times of day
    }


def assert_same(ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> None:
    """The first artifact that differs is named, in the order of the stages."""
    assert ours
    differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    assert not differing, f"{len(differing)} of {len(ours)} differ, the first: {differing[0]}"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("processor", "stages"),
    EMULATED,
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_another_processor_has_the_same_bits(
    processor: str,
    stages: tuple[str, ...],
    small: Checkout,
    here: Checkout,
    emulator: str,
    tmp_path: Path,
) -> None:
    ours = here.copy(tmp_path / "ours")
    run(ours, stages[len(TRAINING) :])
    theirs = small.copy(tmp_path / "theirs")
    run(theirs, stages, emulator, "-cpu", processor)
    assert_same(results(ours, stages), results(theirs, stages))


@pytest.mark.parametrize("unpinned", ["products", "OPENBLAS_CORETYPE"])
def test_a_kernel_that_is_not_pinned_is_noticed(
    unpinned: str, here: Checkout, tmp_path: Path
) -> None:
    """The comparison can fail: this processor's own kernel has other bits, from training on."""
    flags = Path("/proc/cpuinfo").read_text().split()
    if unpinned == "OPENBLAS_CORETYPE" and "avx512bw" not in flags:
        pytest.skip("without AVX-512, OpenBLAS chooses the kernels that portable ones are")
    other = here.copy(tmp_path / "study", ".sae-repro")
    shutil.rmtree(other.folder / "artifacts/train")
    (other.folder / "params.yaml").write_text(PARAMS)  # all cells again
    run(other, ("train",), unpinned=unpinned)
    with pytest.raises(AssertionError, match="the first: artifacts/train/"):
        assert_same(results(here, TRAINING), results(other, TRAINING))


def test_square_roots_left_to_torch_are_noticed_on_another_processor(
    emulator: str, here: Checkout, tmp_path: Path
) -> None:
    """The emulated comparison can fail, too. The small study itself needs none of these roots."""
    other = here.copy(tmp_path / "study", ".sae-repro", "artifacts")
    run(other, ("kernels",), emulator, "-cpu", "EPYC-Rome", unpinned="sqrt")
    with pytest.raises(AssertionError, match="the first: artifacts/kernels/half_power"):
        assert_same(results(here, ("kernels",)), results(other, ("kernels",)))
