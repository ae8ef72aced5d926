"""Runs stages of the study in the working folder in one process: `all_stages.py corpus subject …`.

One process, as an emulated processor takes a minute to import the libraries, and no workers, as
those would run on the real one. What no parameter makes small enough for an emulator is made so
here. Three are no stages: `kernels` writes what single operations give, `samplers` what every
sampler of a search proposes after made-up trials, and `fewer` takes trained cells out of
params.yaml that later stages treat as others. UNPINNED names one kernel to leave to this processor:
`products`, `sqrt`, or a name among `kernels.PORTABLE`.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from unittest import mock

from sae_repro.numerics import kernels

SMALLER = {
    "sae_repro.control.recipes.TWO_ATOMS_STEPS": 5,
    "sae_repro.control.recipes.ORACLE_WIDTHS": (32,),
    "sae_repro.control.trial.HELD_OUT": 1000,
    "sae_repro.control.trial.CALIBRATION": 1000,
    "sae_repro.tune.proposals.STARTUP": 2,
    "sae_repro.subject.gates.THRESHOLDS": {},  # a model of three steps passes no gate
}
ROOTS = ("sqrt", "sqrt.out", "sqrt_", "pow.Tensor_Scalar", "pow.Tensor_Scalar_out", "pow_.Scalar")


def main(stages: list[str]) -> None:
    """Run them."""
    os.environ["SAE_REPRO_JOBS"] = "1"
    unpinned = os.environ.get("UNPINNED")
    if unpinned in kernels.PORTABLE:
        pinned = {name: value for name, value in kernels.PORTABLE.items() if name != unpinned}
        kernels.PORTABLE = pinned
    kernels.choose("portable")  # before what follows imports numpy
    if unpinned in ("products", "sqrt"):
        from sae_repro.numerics import products

        for name in list(products._KERNELS):
            if (name in ROOTS) == (unpinned == "sqrt"):
                del products._KERNELS[name]
    for stage in stages:
        if stage in BESIDE:
            BESIDE[stage]()
            continue
        os.environ["DVC_STAGE"] = f"tune/dvc.yaml:{stage}" if stage == "tune" else stage
        module = f"sae_repro.{stage}."
        patches = {name: new for name, new in SMALLER.items() if name.startswith(module)}
        for name, new in patches.items():
            mock.patch(name, new).start()
        runpy.run_path(f"stages/{stage}.py", run_name="__main__")


def kernels_alone() -> None:
    """Write artifacts/kernels/<operation>.npy: results of operations that no stage may need."""
    import numpy as np
    import torch

    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)
    folder = Path("artifacts/kernels")
    folder.mkdir(parents=True)
    x_nd = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) + 1e-3
    operations = {
        "product": lambda: x_nd @ x_nd,
        "square_root": lambda: x_nd.sqrt(),
        "square_root_fp64": lambda: x_nd.double().sqrt(),
        "half_power": lambda: x_nd**0.5,
        "exp": lambda: x_nd.exp(),
        "log": lambda: x_nd.log(),
        "tanh": lambda: x_nd.tanh(),
        "softmax": lambda: x_nd.softmax(-1),
        "norm": lambda: torch.linalg.vector_norm(x_nd, dim=1),
        "qr": lambda: torch.linalg.qr(x_nd).R,
    }
    for name, operation in operations.items():
        np.save(folder / f"{name}.npy", operation().numpy())


def fewer() -> None:
    """Leave cells of every saved architecture, with prefixes and without, of each kind of model."""
    path = Path("params.yaml")
    left_out = ("  resample:", "  batchtopk:", "  random:", "  neurons:", "  untrained:")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(left_out)))


def samplers() -> None:
    """Write artifacts/samplers/<sampler>.json, and the importance of parameters as a figure."""
    import numpy as np
    import optuna

    from sae_repro.numerics.determinism import prepare
    from sae_repro.params import Tune
    from sae_repro.tune.figures import LEAST, importance
    from sae_repro.tune.proposals import propose_batch

    prepare(device="cpu", threads=1)
    folder = Path("artifacts/samplers")
    folder.mkdir(parents=True)
    space = {
        "trials": 4, "batch": 4, "objectives": {"fvu": "minimize"},
        "all": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}},
        "recipes": {"topk": {"activation": "topk", "k": {"low": 1, "high": 6}}},
    }  # fmt: skip
    for sampler in ("tpe", "gp", "nsga2", "random"):
        tune = Tune.model_validate({**space, "sampler": sampler})
        first = propose_batch(tune.model_copy(update={"sampler": "random"}), "made up", [], LEAST)
        values = np.random.default_rng(0).random(LEAST)
        trials = [
            optuna.trial.create_trial(params=p.params, distributions=p.distributions, value=v)
            for p, v in zip(first, values.tolist(), strict=True)
        ]
        proposed = [p.params for p in propose_batch(tune, "made up", trials, 2)]
        (folder / f"{sampler}.json").write_text(json.dumps(proposed))
    importance(folder, tune, trials)


BESIDE = {"kernels": kernels_alone, "fewer": fewer, "samplers": samplers}

if __name__ == "__main__":
    main(sys.argv[1:])
