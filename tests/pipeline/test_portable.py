"""The same bits on other processors: a study made here, and made again on emulated ones."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Checkout

pytestmark = pytest.mark.slow

RUNNER = Path(__file__).with_name("all_stages.py")
EMULATED = ("corpus", "subject", "extract", "train")
"""Stages that an emulator makes in minutes; evaluation would take it half an hour."""
STAGES = ("corpus", "subject", "extract", "train", "evaluate", "judge", "control", "compare")
SMALLER = {
    "steps: 60, batch_size: 16": "steps: 3, batch_size: 8",
    "20_000": "1_000",
    "2_000": "500",
    "n_validation_tokens: 4_000": "n_validation_tokens: 1_000",
    "epochs: 3": "epochs: 1",
    "hooks: [blocks.0.hook_resid_post]": "hooks: [blocks.0.hook_resid_post]\n"
    "  untrained_hooks: [blocks.0.hook_resid_post]",
}
CELLS = """\
recipes:
  auxk: {revival: auxk, dead_tokens: 200, expansion: 4, k: 3}
cells:
  vanilla: {expansion: 4, penalty: l1, lambda: 1e-2, target_l0: 3}
  resample: {expansion: 4, penalty: l1, lambda: 5e-2, revival: resample, resample_every: 4}
  topk: {recipe: auxk, activation: topk}
  batchtopk: {recipe: auxk, activation: batchtopk}
  fixed: {recipe: auxk, activation: batchtopk, prefixes: fixed}
  random: {recipe: auxk, activation: batchtopk, prefixes: random}
  jumprelu:
    {activation: jumprelu, expansion: 4, penalty: l0_quadratic, lambda: 1, jumprelu_bandwidth: 0.1,
     target_l0: 3}
  gated: {activation: gated, expansion: 4, penalty: l1, lambda: 2e-2, target_l0: 3}
  pca: {baseline: pca}
  random-weights: {recipe: auxk, activation: topk, hook: untrained/blocks.0.hook_resid_post}
"""


@pytest.fixture(scope="session")
def small(fresh: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A study of every architecture that takes an emulator minutes; nothing has run yet."""
    checkout = fresh.copy(tmp_path_factory.mktemp("portable") / "study")
    for old, new in SMALLER.items():
        checkout.change(old, new)
    path = checkout.folder / "params.yaml"
    path.write_text(path.read_text().partition("recipes:")[0] + CELLS)
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
    """The study made by this machine's processor."""
    checkout = small.copy(tmp_path_factory.mktemp("here") / "study")
    run(checkout)
    return checkout


def run(checkout: Checkout, *emulator: str, stages: tuple[str, ...] = STAGES) -> None:
    """Run stages in one process, behind the words `emulator`."""
    command = [*emulator, sys.executable, str(RUNNER), *stages]
    done = subprocess.run(
        command, cwd=checkout.folder, env=checkout.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def results(checkout: Checkout, stages: tuple[str, ...] = STAGES) -> dict[str, bytes]:
    """Contents of artifacts/ and reports/, in the order of the stages that write them."""
    folders = ["reports" if stage == "compare" else f"artifacts/{stage}" for stage in stages]
    return {
        path.relative_to(checkout.folder).as_posix(): path.read_bytes()
        for folder in folders
        for path in sorted((checkout.folder / folder).rglob("*"))
        if path.is_file()
    }


def test_a_second_run_here_has_the_same_bits(small: Checkout, here: Checkout) -> None:
    """Otherwise what differs between processors would say nothing."""
    again = small.copy(small.folder.with_name("again"))
    run(again)
    assert results(again) == results(here)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("processor", ["EPYC-Rome", "Haswell"])
def test_another_processor_has_the_same_bits(
    processor: str, emulator: str, small: Checkout, here: Checkout
) -> None:
    there = small.copy(small.folder.with_name(processor))
    run(there, emulator, "-cpu", processor, stages=EMULATED)
    ours, theirs = results(here, EMULATED), results(there, EMULATED)
    assert list(ours) == list(theirs)
    differing = [name for name in ours if ours[name] != theirs[name]]
    assert not differing, f"{len(differing)} of {len(ours)} differ, the first: {differing[0]}"
