"""Clusters of many machines: two Ray nodes that share no folder, and scripts for larger ones."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sae_repro.files import read_json, sha256_folder

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


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.skipif(
    not shutil.which("ip") or not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="network namespaces need `ip` and root",
)
def test_a_grid_on_two_nodes_one_of_which_is_killed_gives_the_bits_of_one_process(
    fresh: Checkout, tmp_path: Path
) -> None:
    one = fresh.copy(tmp_path / "one")
    head, _, _ = (one.folder / "params.yaml").read_text().partition("cells:\n")
    (one.folder / "params.yaml").write_text(f"{head}cells:\n{GRID}")
    one.change("epochs: 3", "epochs: 12")
    one.repro("train", "evaluate", SAE_REPRO_JOBS="1")
    two = one.copy(tmp_path / "two", "train", "evaluate", "cells", "costs", "checkpoints")
    done = subprocess.run(
        [CLUSTER / "two-nodes.sh", two.folder,
         "dvc", "repro", "--force", "--single-item", "train", "evaluate"],
        env=two.environment(KILL="1", WORK=str(tmp_path / "work")),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "ray: 2 nodes, 2 jobs at a time" in done.stdout
    assert "two-nodes: killed node 2" in done.stdout
    for stage in ("train", "evaluate"):
        folders = [checkout.folder / "artifacts" / stage for checkout in (one, two)]
        assert sha256_folder(folders[0]) == sha256_folder(folders[1]), stage
    assert done.stdout.count("; begun again") == 1, "the one that was lost, and no other"
    costs = [read_json(path) for path in two.folder.glob(".sae-repro/costs/*.json")]
    assert [cost["parts"] for cost in costs] == [1] * 12
