"""The files of a cell's folder that every kind of cell has: records, and the hook's metadata."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.files import canonical_json, write_json, write_text
from sae_repro.params import EMBEDDINGS, UNTRAINED, model_hook, weights_of
from sae_repro.params.joint import by_model

if TYPE_CHECKING:
    from sae_repro.train.job import CellJob


Rows = Sequence[Mapping[str, Any]]


def hook_metadata(hook: str, target: str | None = None) -> dict[str, Any]:
    """The hook of an SAE, and a transcoder's target, under SAELens's keys, by the model's names."""
    random = {UNTRAINED: "random", EMBEDDINGS: "random, embeddings trained"}.get(weights_of(hook))
    out = {"hook_name_out": model_hook(target)} if target else {}
    return {"hook_name": by_model(hook), **out, **({"model_weights": random} if random else {})}


def write_records(
    folder: Path,
    job: "CellJob",
    *,
    id: str | None,
    d_in: int,
    d_sae: int,
    d_out: int | None = None,
    choices: Mapping[str, Any],
    steps: int = 0,
    metrics: Rows = (),
    revivals: Rows = (),
    unreached: Sequence[str] = (),
    outcome: Mapping[str, Any] | None = None,
) -> None:
    """Write train.json, metrics.jsonl and revival.jsonl.

    `id` names the SAE beyond this study, `d_out` is the width of a transcoder's targets, `choices`
    are what it was made by, `unreached` those of them that its steps never came to, `outcome` is
    what training has to add; an SAE that no step of ours has changed has neither steps nor rows.
    """
    for name, rows in (("metrics", metrics), ("revival", revivals)):
        write_text(folder / f"{name}.jsonl", "".join(canonical_json(row) + "\n" for row in rows))
    record = {
        "id": id,
        "key": job.key,
        "status": "ok",
        "hook": job.hook,
        "d_in": d_in,
        "d_sae": d_sae,
        "steps": steps,
        "tokens": steps * job.settings.batch_size,
        "seed": job.seed,
        "choices": dict(choices),
        "unreached": list(unreached),
        "train": job.settings.model_dump(mode="json") if steps else {},
    }
    if d_out is not None:
        record["d_out"] = d_out
    write_json(folder / "train.json", record | dict(outcome or {}))
