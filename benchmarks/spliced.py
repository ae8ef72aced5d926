"""Fidelity of our SAEs beside SAELens' on a real model: cross-entropy recovered, and KL divergence.

    python -m benchmarks.spliced news-15=studies/smollm2-news:blocks.15.hook_resid_post
    python -m benchmarks.spliced --only TopK --seeds 0 --fidelity-tokens 2000 news-7=...

Arguments are name=study:hook, of a study whose stages corpus, subject and extract were run. Both
trainers train as in `benchmarks.defaults`: the same activations, steps, width and sparsity, our
defaults, SAELens at the one of --rates that gives the lowest held-out FVU. Each SAE's
reconstruction then takes the place of the activations in the same validation windows; cross-entropy
recovered is (zeroed − spliced) / (zeroed − clean). Rows are added to reports/benchmarks/spliced.csv
as they are measured; spliced.md is written anew from it.
"""

import argparse
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.numerics.kernels import choose

from .defaults import OURS, Data, K, held_out, train_ours, train_peer

if TYPE_CHECKING:
    from sae_repro.autoencoders import SAE
    from sae_repro.evaluate.fidelity import Untouched

ARCHITECTURES = ("TopK", "BatchTopK", "Matryoshka BatchTopK", "JumpReLU")
RATES, SEEDS = (3e-3, 1e-2), (0, 1, 2)
KEY = ["activations", "architecture", "library", "seed"]
MEASURED = {"fvu": "FVU", "ce_recovered": "cross-entropy recovered", "kl": "KL"}
ENOUGH = 2  # seeds of each library


def trained(
    data: Data, architecture: str, seed: int, rates: Sequence[float]
) -> Iterator[tuple[dict[str, Any], "SAE"]]:
    """(row, SAE) of SAELens at its best rate, then of ours at the same L0."""
    found = []
    for lr in rates:
        sae = train_peer(architecture, data, lr=lr, seed=seed)
        found.append(({"library": "SAELens", "lr": lr, **held_out(sae, data)}, sae))
    peer, sae = min(found, key=lambda made: made[0]["fvu"])
    yield peer, sae
    l0 = K if "k" in OURS[architecture] else peer["l0"]
    sae, lr = train_ours(architecture, data, l0=l0, seed=seed)
    yield {"library": "sae-repro", "lr": round(lr, 6), **held_out(sae, data)}, sae


def spliced(untouched: "Untouched", saes: Sequence["SAE"]) -> list[dict[str, float]]:
    """What each SAE's reconstruction costs the model, in the order of `saes`; nats per target."""
    import torch

    from sae_repro.evaluate.fidelity import fidelity

    replacements: dict[str, Any] = {
        str(place): lambda x_nd, sae=sae: sae.decode(sae.encode(x_nd))
        for place, sae in enumerate(saes)
    }
    measured = fidelity(untouched, {"zero": torch.zeros_like, **replacements})
    n = int(measured.targets.sum())
    total = {name: float(of_document.sum()) / n for name, of_document in measured.sums.items()}
    lost = total["ce_zero"] - total["ce_clean"]
    return [
        {
            "ce_clean": round(total["ce_clean"], 4),
            "ce_zero": round(total["ce_zero"], 4),
            "ce_spliced": round(total[f"ce_{name}"], 4),
            "ce_recovered": round((total["ce_zero"] - total[f"ce_{name}"]) / lost, 4),
            "kl": round(total[f"kl_{name}"], 4),
            "targets": n,
            "documents": int((measured.targets > 0).sum()),
        }
        for name in replacements
    ]


def rows_of(data: Data, study: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of one hook, seed by seed."""
    from sae_repro.evaluate.fidelity import Untouched, Windows
    from sae_repro.readers.subject import load_subject

    windows = Windows(study / "artifacts/extract/windows", options.fidelity_tokens)
    subject = load_subject(study / "artifacts/subject")
    untouched = Untouched.of(subject, windows, data.hook)
    for seed in options.seeds:
        for architecture in options.only:
            made = [*trained(data, architecture, seed, options.rates)]
            found = spliced(untouched, [sae for _, sae in made])
            for (row, _), fidelity in zip(made, found, strict=True):
                yield {"architecture": architecture, "seed": seed, **row, **fidelity}


def report() -> None:
    """spliced.md from the table."""
    from importlib.metadata import version

    from .tables import read, write_page

    table = read("spliced")
    lines = []
    for (activations, architecture), rows in table.groupby(
        ["activations", "architecture"], sort=False
    ):
        ours, peer = (rows[rows["library"] == name] for name in ("sae-repro", "SAELens"))
        row = {
            "activations": activations,
            "architecture": architecture,
            "lr of SAELens": ", ".join(f"{lr:g}" for lr in sorted(peer["lr"].unique())),
            "L0, ours": f"{ours['l0'].mean():.1f}",
            "L0, SAELens": f"{peer['l0'].mean():.1f}",
        }
        for name, label in MEASURED.items():
            row[f"{label}, ours"] = f"{ours[name].mean():.3f}"
            row[f"{label}, SAELens"] = f"{peer[name].mean():.3f}"
            row[f"{label}, ours − SAELens"] = _difference(ours[name], peer[name])
        lines.append(row)
    import pandas as pd

    sizes = "; ".join(
        f"{row.activations}: {row.expansion} latents a dimension, {row.tokens:,} training tokens "
        f"in batches of {row.batch}, {row.targets:,} targets in {row.documents} documents, "
        f"{row.ce_clean:.3f} nats clean, {row.ce_zero:.3f} zeroed"
        for row in table.drop_duplicates("activations").itertuples()
    )
    seeds = ", ".join(map(str, sorted(table["seed"].unique())))
    body = (
        "The reconstruction of each SAE in the place of the activations, in validation windows; "
        f"means over seeds {seeds}. {sizes}. SAELens {version('sae-lens')} at the learning rate "
        "shown, of those tried the one with the lowest held-out FVU; ours at its defaults; "
        f"k = {K}, JumpReLU at SAELens' L0; of both a latent is dead that fired on none of a third "
        "of the training tokens. In "
        "brackets 95 % of a difference of means over seeds (Welch). Cross-entropy recovered: "
        "(zeroed − spliced) / (zeroed − clean); KL in nats per target.\n\n"
        + str(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True))
    )
    write_page("spliced", "Fidelity of our defaults beside SAELens'", body, table)


def _difference(ours: Any, peer: Any) -> str:
    from scipy.stats import ttest_ind

    mean = ours.mean() - peer.mean()
    if min(len(ours), len(peer)) < ENOUGH:
        return f"{mean:+.3f}"
    low, high = ttest_ind(ours, peer, equal_var=False).confidence_interval()
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def main(options: argparse.Namespace) -> None:
    """Train and splice, a row at a time."""
    choose("portable")  # before numpy is imported
    os.environ["TQDM_DISABLE"] = "1"
    from sae_repro.numerics.determinism import prepare
    from sae_repro.readers.shards import ActivationStore

    from .tables import machine_of, renew

    prepare(device="cpu", threads=1)
    warnings.simplefilter("ignore")
    for argument in options.activations:
        name, _, place = argument.partition("=")
        study, _, hook = place.partition(":")
        store = ActivationStore(Path(study) / "artifacts/extract")
        sizes = {"expansion": options.expansion, "tokens": options.tokens, "batch": options.batch}
        for row in rows_of(Data(store, hook, **sizes), Path(study), options):
            print(json.dumps({"activations": name, **row}), flush=True)
            renew("spliced", [{"activations": name, **sizes, **row, **machine_of("portable")}], KEY)
    report()


def asked(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line, or `arguments`, asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spliced")
    parser.add_argument("activations", nargs="+", help="name=study:hook")
    names = "architectures, of: " + ", ".join(ARCHITECTURES)
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES),
                        metavar="NAME", help=names)  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES),
                        help="SAELens' learning rates")  # fmt: skip
    parser.add_argument("--fidelity-tokens", type=int, default=4000)
    parser.add_argument("--expansion", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=128)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(asked())
