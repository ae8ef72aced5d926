"""Do latents that mean a class of words make the model write that class? By the grammar's labels.

    python -m benchmarks.steering [--study .] [--cell topk-x8-k16/seed-0] [--kl 0.3] [NAME …]

Needs the embedded study's artifacts. For each class NAME three latents: the one that fits it best,
the one that fits `next:NAME` best, and the one whose atom promotes most of its words. Each is
clamped, beside random directions of length 1 and the difference of means added at every position,
each as strong as makes KL(unsteered ‖ steered) on held-out stories the same; and set to 0. Then all
continue the same beginnings of held-out stories, drawn by the same numbers, and the share of the
class's words among the tokens is counted. Writes reports/benchmarks/steering.csv and .md.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sae_repro.numerics.kernels import choose

choose("portable")

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from sae_repro.latents.of_cell import CellSAE  # noqa: E402
from sae_repro.latents.reading import TextReader  # noqa: E402
from sae_repro.numerics.bootstrap import mean_interval  # noqa: E402
from sae_repro.numerics.determinism import prepare  # noqa: E402
from sae_repro.numerics.random import generator  # noqa: E402
from sae_repro.params import load  # noqa: E402
from sae_repro.readers.documents import TokenDocuments  # noqa: E402
from sae_repro.readers.shards import ActivationStore  # noqa: E402
from sae_repro.steering import (  # noqa: E402
    Intervention,
    continued,
    divergence,
    edit_of,
    edited,
    predictions,
    promoted_tokens,
)
from sae_repro.stories import lexicon  # noqa: E402

from .tables import machine_of, renew, write_page  # noqa: E402

CLASSES = ("name", "animal", "food", "verb")
STORIES = 24  # held-out stories on which KL is measured
PROMPTS, BEGINNING, WRITTEN = 64, 8, 16
DIRECTIONS = 3
STEPS = 9  # of the bisection
STRONGEST = 500.0
LEAST = 100  # activations of a latent on held-out tokens
SEED = 0

Edit = Callable[[Tensor], Tensor]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class World:
    """The model, its unsteered predictions on held-out stories, and beginnings to continue."""

    cell: CellSAE
    reader: TextReader
    stories: Tensor
    clean: Tensor
    real: Tensor
    """[stories, L − 1]: positions of predictions that are no padding."""
    prompts: Tensor
    uniform: npt.NDArray[np.float64]

    @classmethod
    def of(cls, study: Path, name: str) -> "World":
        """The world of one SAE of the study."""
        cell = CellSAE.of(study, load(study / "params.yaml").cells, name)
        reader = TextReader.of(study, cell.hook)
        corpus = TokenDocuments.load(cell.artifacts / "corpus")
        held_out = [corpus.document(int(i)).tolist() for i in corpus.split("validation")]
        context = reader.manifest["context"]
        assert reader.start is not None
        rows = [[reader.start, *document][:context] for document in held_out[:STORIES]]
        longest = max(map(len, rows))
        stories = torch.tensor([row + [reader.start] * (longest - len(row)) for row in rows])
        real = torch.tensor([[t < len(row) for t in range(1, longest)] for row in rows])
        # other stories than KL is measured on
        beginnings = held_out[STORIES : STORIES + PROMPTS]
        prompts = torch.tensor([[reader.start, *each[:BEGINNING]] for each in beginnings])
        uniform = generator(SEED, "steering", "draws").random((len(prompts), WRITTEN))
        clean = predictions(reader.subject, stories)
        return cls(cell, reader, stories, clean, real, prompts, uniform)

    def kl(self, edit: Edit) -> float:
        """KL(unsteered ‖ steered), the mean over the positions of the held-out stories."""
        with self._steered(edit):
            moved = predictions(self.reader.subject, self.stories)
        return float(divergence(self.clean, moved)[self.real].mean())

    def shares(self, edit: Edit, words: Mask) -> npt.NDArray[np.float64]:
        """Of each continuation, the share of `words` [V] among its tokens."""
        with self._steered(edit):
            rows = continued(
                self.reader.subject, self.prompts, WRITTEN, temperature=1.0, uniform_nt=self.uniform
            )
        written = rows[:, self.prompts.shape[1] :].numpy()
        share: npt.NDArray[np.float64] = words[written].mean(axis=1)
        return share

    def _steered(self, edit: Edit) -> Any:
        return edited(
            self.reader.subject, self.reader.place, edit, norm_limit=self.reader.norm_limit
        )


def words_of(name: str, reader: TextReader) -> Mask:
    """The tokens [V] that are of class `name` in each of their uses."""
    parents = lexicon.concept_parents()

    def holds(sense: tuple[str, str]) -> bool:
        concepts = set(lexicon.sense_concepts(*sense))
        above = {parents[concept] for concept in concepts}
        return name in concepts | above

    every: dict[str, list[bool]] = {}
    for sense in lexicon.senses():
        every.setdefault(sense[1], []).append(holds(sense))
    mask = np.zeros(int(reader.subject.cfg.d_vocab), dtype=bool)
    for word, uses in every.items():
        mask[reader.tokenizer.convert_tokens_to_ids(word)] = all(uses)
    return mask


def latents_of(world: World, name: str, words: Mask) -> Iterator[tuple[str, int, bool]]:
    """(how it was chosen, latent, whether it speaks of the next token), each latent once."""
    table = pd.read_parquet(
        world.cell.artifacts / "evaluate" / world.cell.name / "monosemantic.parquet"
    )
    table = table[table["fired"] >= LEAST]
    seen = set()
    for concept, before in ((name, False), (f"next:{name}", True)):
        mine = table[table["concept"] == concept].sort_values("M", ascending=False)
        if len(mine):
            latent, m = int(mine["latent"].iloc[0]), float(mine["M"].iloc[0])
            seen.add(latent)
            yield f"{concept}, M {m:.2f}", latent, before
    promoted = {
        k: int(words[promoted_tokens(world.reader.subject, world.cell.sae, k)].sum())
        for k in table["latent"].tolist()
    }
    best = max(promoted, key=lambda k: promoted[k])
    if best not in seen:
        yield f"promotes {promoted[best]} of 10", best, True


def difference_of_means(world: World, words: Mask, before: bool) -> Tensor:
    """Unit vector from the other calibration tokens to those of `words`, or just before one."""
    store = ActivationStore(world.cell.artifacts / "extract")
    x_nd = torch.from_numpy(np.array(store.activations(world.cell.hook, "calibration").whole()))
    index = store.index("calibration").whole()
    holds = words[index[:, 2]]
    if before:  # rows of a document follow one another
        following = (index[1:, 0] == index[:-1, 0]) & (index[1:, 1] == index[:-1, 1] + 1)
        holds = np.append(holds[1:] & following, False)
    mine = torch.from_numpy(holds)
    direction = x_nd[mine].double().mean(dim=0) - x_nd[~mine].double().mean(dim=0)
    return (direction / direction.square().sum().sqrt()).float()


def added(direction: Tensor, strength: float) -> Edit:
    """The same vector at every position."""
    return lambda x_nd: (strength * direction).expand_as(x_nd)


def as_strong_as(world: World, kl: float, edit: Callable[[float], Edit]) -> float | None:
    """The strength at which `edit` moves predictions by `kl`; None beyond `STRONGEST`."""
    low, high = 0.0, 4.0
    while world.kl(edit(high)) < kl:
        low, high = high, 2 * high
        if high > STRONGEST:
            return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if world.kl(edit(middle)) < kl else (low, middle)
    return (low + high) / 2


def random_direction(number: int, d_in: int) -> Tensor:
    """A unit vector, uniform over directions."""
    vector = generator(SEED, "steering", "direction", number).standard_normal(d_in)
    return torch.from_numpy(vector / np.linalg.norm(vector)).float()


def rows_of(
    world: World, name: str, kl: float, randoms: Sequence[float | None]
) -> Iterator[dict[str, Any]]:
    """A row for each latent of the class `name`; `randoms` are the strengths of the directions."""
    words = words_of(name, world.reader)
    d_in = world.cell.sae.d_in
    clean = world.shares(added(torch.zeros(d_in), 0.0), words)
    by_chance = np.mean(
        [
            world.shares(added(random_direction(i, d_in), strength), words)
            for i, strength in enumerate(randoms)
            if strength is not None
        ],
        axis=0,
    )
    for how, latent, before in latents_of(world, name, words):

        def clamped(value: float, latent: int = latent) -> Edit:
            return edit_of(world.cell.sae, [Intervention(latent, "clamp", value)])

        means = difference_of_means(world, words, before)
        zeroed = edit_of(world.cell.sae, [Intervention(latent, "zero")])
        found = {
            "latent": (clamped, as_strong_as(world, kl, clamped)),
            "means": (partial(added, means), as_strong_as(world, kl, partial(added, means))),
        }
        row: dict[str, Any] = {
            "cell": world.cell.name, "class": name, "kl": kl, "latent": latent, "chosen": how,
            "share_unsteered": clean.mean(), "share_random": by_chance.mean(),
        }  # fmt: skip
        for what, (edit, strength) in found.items():
            row[f"strength_{what}"] = strength
            if strength is None:
                continue
            shares = world.shares(edit(strength), words)
            row[f"share_{what}"] = shares.mean()
            low, high = mean_interval(shares - by_chance, SEED, "steering")
            row |= {f"over_random_{what}": (shares - by_chance).mean(),
                    f"over_random_{what}_low": low, f"over_random_{what}_high": high}  # fmt: skip
        shares = world.shares(zeroed, words)
        low, high = mean_interval(shares - clean, SEED, "steering")
        row |= {"kl_zeroed": world.kl(zeroed), "zeroed_change": (shares - clean).mean(),
                "zeroed_change_low": low, "zeroed_change_high": high}  # fmt: skip
        yield row


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` with numbers of 5 digits: a share of words written has no more."""
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}


def page(rows: pd.DataFrame) -> str:
    """The table for people."""
    lines = [
        f"Held-out stories: KL on {STORIES} of them, continuations of {PROMPTS} others "
        f"({BEGINNING} tokens given, {WRITTEN} drawn at temperature 1). Share: words of the class "
        "among the tokens written. Random: the mean over "
        f"{DIRECTIONS} directions. Intervals: 95 %, bootstrap over the prompts; of one seed, so "
        "that nothing is said of another. Zeroed is not at equal KL. A latent is chosen by the "
        "concept that it fits best, or as the one whose atom promotes most words of the class "
        f"(logit lens), of those that fire {LEAST} times; the difference of means is between "
        "tokens of the class and others, or, but for latents of the class itself, between the "
        "tokens just before one and others.",
        "",
        "| class | latent, chosen by | unsteered | random | clamped − random | difference of means "
        "− random | zeroed − unsteered (its KL) |",
        "|---|---|---|---|---|---|---|",
    ]

    def difference(row: dict[str, Any], name: str) -> str:
        if pd.isna(row[name]):
            return f"KL not reached up to {STRONGEST:g}"
        return f"{row[name]:+.3f} [{row[f'{name}_low']:+.3f}, {row[f'{name}_high']:+.3f}]"

    for row in rows.to_dict("records"):
        lines.append(
            f"| {row['class']} | {row['latent']}, {row['chosen']} | {row['share_unsteered']:.3f} | "
            f"{row['share_random']:.3f} | {difference(row, 'over_random_latent')} | "
            f"{difference(row, 'over_random_means')} | {difference(row, 'zeroed_change')} "
            f"({row['kl_zeroed']:.3f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print each row as it is known, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=CLASSES)
    parser.add_argument("--study", type=Path, default=Path())
    parser.add_argument("--cell", default="topk-x8-k16/seed-0")
    parser.add_argument("--kl", type=float, default=0.3)
    given = parser.parse_args()
    prepare(device="cpu", threads=1)
    world = World.of(given.study, given.cell)
    d_in = world.cell.sae.d_in
    randoms = [
        as_strong_as(world, given.kl, partial(added, random_direction(i, d_in)))
        for i in range(DIRECTIONS)
    ]
    for name in given.names:
        rows = []
        for row in rows_of(world, name, given.kl, randoms):
            print(row, flush=True)
            rows.append({**rounded(row), **machine_of("portable")})
        table = renew("steering", rows, ["cell", "class", "kl", "latent"])
        write_page("steering", "Steering by latents, by the grammar's labels", page(table), table)


if __name__ == "__main__":
    main()
