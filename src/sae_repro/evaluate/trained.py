"""Where the study's SAEs stand: in artifacts/train, or still in the local store.

DVC runs a cell's evaluation as soon as that cell's own training stage is through, while the first
of those stages has trained all of them: whoever evaluated what artifacts/train holds would find a
few at a time, and outs of earlier choices among them.
"""

from pathlib import Path

from sae_repro.cellstore import CellStore, members
from sae_repro.params import Cell, check_section, read_yaml
from sae_repro.stage import StageContext
from sae_repro.train import jobs_of
from sae_repro.train.grid import present

Place = tuple[str, str]
"""A cell's name, and where below its folder one of its SAEs stands."""


def trained_saes(context: StageContext, store: CellStore) -> dict[Place, Path]:
    """The folder of every SAE that is trained by now: the stage's own, as artifacts/train has it.

    What params.yaml says of the others is read for that, which changes nothing in its own out.
    """
    out = context.artifacts("train")
    found = {
        (context.key, place): out / context.key / place for place in members(out / context.key)
    }
    raw = read_yaml(Path("params.yaml"))
    cells = {
        name: check_section(Cell, choices, within=f"cells.{name}")
        for name, choices in raw["cells"].items()
        if name != context.key
    }
    for (name, place), job in jobs_of(StageContext("train", raw), store, cells).items():
        folder = out / name / place if present(out / name / place, job.key) else store.find(job.key)
        if folder is not None:
            found[name, place] = folder
    return found
