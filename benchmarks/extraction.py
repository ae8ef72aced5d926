"""Extraction beside the bare forward pass that stops at the last hook's layer: CPU time per token.

    python -m benchmarks.extraction [--tokens N] [--rounds N] [STUDY ...]

Arguments are folders of studies with artifacts/corpus and artifacts/subject, this one where there
is none; `extract` is as in their params.yaml, but for the number of tokens. Both sides take turns
on the same windows, and on every model that the study reads. Extraction is all that a stage does
from windows to manifest, checksums and states among it, but for loading models and for the
calibration tokens that `norm_limit` reads first, whose number doesn't grow with the corpus. One
thread, portable kernels.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from sae_repro.numerics.kernels import choose

if TYPE_CHECKING:
    from sae_repro.extract.extraction import Inputs
    from sae_repro.params import Extract

OTHERS = 10  # each of the other splits has one token in so many of the training split's


def sides(
    inputs: "Inputs", settings: "Extract", seed: int
) -> tuple[int, Callable[[], float], Callable[[], float]]:
    """(real tokens, bare passes, extraction): the last two give a round's seconds of CPU."""
    import torch

    from sae_repro.extract.extraction import SPLITS, Extraction
    from sae_repro.extract.passes import windows_within
    from sae_repro.extract.resumption import States
    from sae_repro.params import layer_of

    splits = [split for split in SPLITS if len(inputs.corpus.split(split))]
    models = [
        (model, max(map(layer_of, hooks)) + 1)
        for model, hooks in (
            (inputs.subject, settings.hooks),
            (inputs.untrained, settings.untrained_hooks),
            (inputs.embeddings, settings.embeddings_hooks),
        )
        if model is not None
    ]
    windows = [
        batch
        for split in splits
        for batch in windows_within(
            inputs.corpus, split, settings, getattr(settings, _limit(split)), settings.batch_size
        )
    ]
    batches = [torch.from_numpy(batch.tokens[:, : int(batch.length.max())]) for batch in windows]

    def bare() -> float:
        start = time.process_time()
        with torch.inference_mode():
            for tokens in batches:
                for model, stop in models:
                    model(tokens, stop_at_layer=stop)
        return time.process_time() - start

    def extraction() -> float:
        with tempfile.TemporaryDirectory() as name:
            states = States(Path(name) / "extract")
            made = Extraction(inputs, settings, seed, states.folder)
            start = time.process_time()
            for split in splits:
                made.split(split, inputs, states)
            made.finish(inputs)
            return time.process_time() - start

    return sum(int(batch.mask.sum()) for batch in windows), bare, extraction


def _limit(split: str) -> str:
    return "n_tokens" if split == "train" else f"n_{split}_tokens"


def measure(study: Path, tokens: int, rounds: int) -> str:
    """A row of the table."""
    from sae_repro.extract.extraction import SPLITS
    from sae_repro.extract.loading import load_inputs
    from sae_repro.params import Extract

    params = YAML(typ="safe", pure=True).load(study / "params.yaml")
    limits = {_limit(split): tokens if split == "train" else tokens // OTHERS for split in SPLITS}
    settings = Extract.model_validate({**params["extract"], **limits})
    artifacts = study / "artifacts"
    seed = int(params["seed"])
    inputs = load_inputs(artifacts / "corpus", artifacts / "subject", settings, seed)
    n, bare, extraction = sides(inputs, settings, seed)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        bare(), extraction()  # what is first used is loaded
        pairs = [(bare(), extraction()) for _ in range(rounds)]
    ratios = sorted(one / other for one, other in pairs)
    q1, median, q3 = statistics.quantiles(ratios, n=4)
    of = [1e6 * statistics.median(side) / n for side in zip(*pairs, strict=True)]
    d, hooks = int(inputs.subject.cfg.d_model), len(settings.all_hooks)
    return (
        f"| {study.resolve().name} | {d} | {hooks} | {n:,} | {of[0]:.1f} | {of[1]:.1f} | "
        f"{median:.2f} ({q1:.2f} – {q3:.2f}) |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("studies", nargs="*", type=Path, default=[Path()])
    asked = parser.parse_args()
    choose("portable")  # before numpy and torch are imported
    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)
    print(
        "| study | D | hooks | tokens | bare pass, µs a token | extraction, µs a token | "
        f"ratio: median of {asked.rounds} (quartiles) |\n|---|---|---|---|---|---|---|"
    )
    for study in asked.studies:
        print(measure(study, asked.tokens, asked.rounds), flush=True)


if __name__ == "__main__":
    main()
