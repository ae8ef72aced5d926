"""Activations of two hooks on disk, inputs and targets of the same tokens."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sae_repro.contents import seal
from sae_repro.files import write_json

INPUT, TARGET = "blocks.0.hook_resid_post", "blocks.0.hook_mlp_out"
Map = Callable[[np.ndarray], np.ndarray]


def paired(make_store: Callable[..., Path], rows: Callable[..., np.ndarray], of: Map) -> Path:
    """The folder of a store in which activations at `TARGET` are `of` those at `INPUT`.

    `make_store` shuffles every hook's rows alike.
    """
    x = {"train": rows(4096, 8, 1), "validation": rows(1024, 8, 3), "tuning": rows(512, 8, 4)}
    y = {split: of(part).astype(np.float32) for split, part in x.items()}
    folder = make_store(**x, name="extract")
    targets = make_store(**y, d_in=y["train"].shape[1], name="targets")
    shutil.copytree(targets / INPUT, folder / TARGET)
    manifest, added = (json.loads((f / "manifest.json").read_text()) for f in (folder, targets))
    hook = json.loads(json.dumps(added["hooks"][INPUT]).replace(INPUT, TARGET))
    manifest["hooks"][TARGET] = hook
    write_json(folder / "manifest.json", manifest)
    seal(folder)
    return folder
