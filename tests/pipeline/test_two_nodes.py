"""Clusters of many machines: two Ray nodes that share no folder, and scripts for larger ones."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sae_repro.files import read_json, sha256_file, sha256_folder

from .conftest import ROOT, Checkout

CLUSTER = ROOT / "docs/cluster"
GRID = "".join(
    f"  {name}-{n}: {{expansion: 4, lr: 1e-3, {choices}}}\n"
    for n in (1, 2, 3, 4)
    for name, choices in (
        ("relu", f"penalty: l1, lambda: {n}e-2"),
        ("topk", f"activation: topk, k: {n}"),
        ("batch", f"activation: batchtopk, k: {n}, prefixes: random"),
    )
)

WORLDS = """\
control:
  worlds: [tree, two_atoms, oracle, revival, {path: families.yaml, sha256: PIN}]
  seeds: 2
  tree_steps: 100
  oracle_steps: 40
  revival_steps: 100
"""
FAMILIES = """\
atoms: 24
d_in: 12
hierarchy: {roots: 6, branching: 2, depth: 2}
saes: {recipes: [batchtopk, vanilla], widths: [24], l0: [1], steps: 100}
"""
STUDIES = """\
tune:
  trials: 4
  batch: 2
  studies: {target_l0: [3], seeds: [1]}
  all: {expansion: 4, lr: {low: 5e-4, high: 3e-2, log: true}}
  recipes:
    topk: {activation: topk}
    vanilla: {penalty: l1, lambda: {low: 1e-3, high: 1e-1, log: true}}
"""
PRUNED = """\
tune:
  trials: 10
  batch: 4
  objectives: {fvu: minimize}
  pruner: {min_steps: 200, tokens: 1024}
  all: {expansion: {values: [2, 4]}, lr: {low: 1e-4, high: 1e-1, log: true}}
  recipes:
    topk: {activation: topk, k: 3}
    batchtopk: {activation: batchtopk, k: 3}
"""
TUNED = ("trials.csv", "best.yaml", "tuning.csv", "tuning.md")

on_two_nodes = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None
    or not shutil.which("ip")
    or not hasattr(os, "geteuid")
    or os.geteuid() != 0,
    reason="two nodes need ray, and for network namespaces `ip` and root",
)


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell_and_can_be_run(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert os.access(path, os.X_OK)


def test_the_cluster_for_kubernetes_gives_every_pod_the_same_image_and_secret() -> None:
    documents = list(yaml.safe_load_all((CLUSTER / "ray-cluster.yaml").read_text()))
    [cluster] = [found for found in documents if found["kind"] == "RayCluster"]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    containers = [c for group in groups for c in group["template"]["spec"]["containers"]]
    assert len(containers) == len(groups) > 1
    assert len({container["image"] for container in containers}) == 1
    tokens = [_of_name(container["env"], "RAY_AUTH_TOKEN") for container in containers]
    assert all(token == tokens[0] and "secretKeyRef" in token["valueFrom"] for token in tokens)
    folders = {
        _of_name(container["env"], "SAE_REPRO_NODE_FOLDER")["value"] for container in containers
    }
    assert len(folders) == 1
    for container in containers:
        assert folders == {_of_name(container["volumeMounts"], "inputs")["mountPath"]}


def _of_name(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    [found] = [item for item in items if item["name"] == name]
    return found


def carried_out(study: Checkout, work: Path, *arguments: str, **env: str) -> str:
    """What `dvc repro` says with `arguments`, run in `study` as the first of two nodes."""
    done = subprocess.run(
        [CLUSTER / "two-nodes.sh", study.folder, "dvc", "repro", "--single-item", *arguments],
        env=study.environment(WORK=str(work), **env),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "ray: 2 nodes, 2 jobs at a time" in done.stdout
    return done.stdout


def not_yet(study: Checkout, folder: Path, *made: str) -> Checkout:
    """A copy in `folder` that has nothing of what jobs have `made`, nor of their store."""
    copy = study.copy(folder)
    for path in (*made, ".sae-repro"):
        shutil.rmtree(copy.folder / path, ignore_errors=True)
    return copy


def only_on(work: Path, node: int) -> set[str]:
    """SHA-256 of the files that one of the nodes has, and the other has not."""
    had = [
        {path.name for path in (work / str(n) / "node/objects").iterdir() if not path.suffix}
        for n in (node, 3 - node)
    ]
    return had[0] - had[1]


def finished_cells(study: Checkout) -> dict[str, str]:
    """SHA-256 by name of the files in the store of finished cells."""
    store = study.folder / ".sae-repro/cells"
    files = [path for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(store).as_posix(): sha256_file(path) for path in files}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@on_two_nodes
def test_a_grid_on_two_nodes_one_of_which_is_killed_gives_the_bits_of_one_process(
    fresh: Checkout, tmp_path: Path
) -> None:
    one = fresh.copy(tmp_path / "one")
    head, _, _ = (one.folder / "params.yaml").read_text().partition("cells:\n")
    (one.folder / "params.yaml").write_text(f"{head}cells:\n{GRID}")
    one.change("epochs: 3", "epochs: 12")
    one.repro("train", "evaluate", SAE_REPRO_JOBS="1")
    two = not_yet(one, tmp_path / "two", "artifacts/train", "artifacts/evaluate")
    said = carried_out(two, tmp_path / "work", "--force", "train", "evaluate", KILL="1")
    assert "two-nodes: killed node 2" in said
    for stage in ("train", "evaluate"):
        folders = [checkout.folder / "artifacts" / stage for checkout in (one, two)]
        assert sha256_folder(folders[0]) == sha256_folder(folders[1]), stage
    assert said.count("; begun again") == 1, "the one that was lost, and no other"
    costs = [read_json(path) for path in two.folder.glob(".sae-repro/costs/*.json")]
    assert [cost["parts"] for cost in costs] == [1] * 12


@pytest.mark.slow
@pytest.mark.timeout(1800)
@on_two_nodes
def test_controls_on_two_nodes_have_the_bits_of_one_process(
    fresh: Checkout, tmp_path: Path
) -> None:
    one = fresh.copy(tmp_path / "one")
    text = (one.folder / "params.yaml").read_text()
    text = re.sub("source: {kind: files.*", "source: {kind: stories, n_documents: 600}", text)
    (one.folder / "families.yaml").write_text(FAMILIES)
    worlds = WORLDS.replace("PIN", sha256_file(one.folder / "families.yaml"))
    text = text.replace("control: {worlds: []}\n", worlds)
    (one.folder / "params.yaml").write_text(text)
    one.repro("control", SAE_REPRO_JOBS="1")
    two, work = not_yet(one, tmp_path / "two", "artifacts/control"), tmp_path / "work"
    carried_out(two, work, "--force", "control")
    folders = [checkout.folder / "artifacts/control" for checkout in (one, two)]
    assert sha256_folder(folders[0]) == sha256_folder(folders[1])
    worlds = {row.split(",")[0] for row in (folders[0] / "trials.csv").read_text().splitlines()}
    assert len(worlds - {"world"}) == 7, worlds  # two of the trees, two of the oracle
    for node in (1, 2):
        made = [read_json(work / f"{node}/node/objects" / name) for name in only_on(work, node)
                if b'"atoms"' in (work / f"{node}/node/objects" / name).read_bytes()]  # fmt: skip
        assert made, f"node {node} has worked"


@pytest.fixture(scope="module")
def extracted(fresh: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The small study with tuning documents, after `extract`, and a search that lacks its space."""
    study = fresh.copy(tmp_path_factory.mktemp("extracted") / "study")
    study.change("  calibration: 0.1\n", "  calibration: 0.1\n  tuning: 0.1\n")
    study.change("epochs: 3", "epochs: 6")
    study.repro("extract")
    (study.folder / "tune").mkdir()
    (study.folder / "tune/dvc.yaml").write_text((ROOT / "tune/dvc.yaml").read_text())
    return study


@pytest.mark.slow
@pytest.mark.timeout(1800)
@on_two_nodes
@pytest.mark.parametrize(
    ("space", "kill"), [(STUDIES, ""), (PRUNED, "1")], ids=["per-recipe", "pruned-one-killed"]
)
def test_a_search_on_two_nodes_has_the_trials_of_one_process(
    extracted: Checkout, tmp_path: Path, space: str, kill: str
) -> None:
    one, two = (extracted.copy(tmp_path / name) for name in ("one", "two"))
    for study in (one, two):
        (study.folder / "tune/params.yaml").write_text(space)
    one.repro("tune/dvc.yaml", SAE_REPRO_JOBS="1")
    work = tmp_path / "work"
    said = carried_out(two, work, "tune/dvc.yaml:tune", KILL=kill)
    for name in TUNED:
        files = [study.folder / "tune" / name for study in (one, two)]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    figures = [sha256_folder(study.folder / "tune/figures") for study in (one, two)]
    assert figures[0] == figures[1]
    journals = [(study.folder / "tune/journal.log").read_text() for study in (one, two)]
    hashes = [re.findall(r'"sae_repro.sha256": ?"(\w{64})"', journal) for journal in journals]
    assert hashes[0] == hashes[1] and len(hashes[0]) == (8 if space == STUDIES else 10)
    assert finished_cells(one) == finished_cells(two)
    assert ("pruned" in (one.folder / "tune/trials.csv").read_text()) == (space == PRUNED)
    assert said.count("; begun again") == (1 if kill else 0)
    if not kill:
        cells = set(finished_cells(two).values())
        assert all(cells & only_on(work, node) for node in (1, 2)), "both nodes have worked"
