"""Example latents: which are shown, with which contexts, and how they read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_repro.compare.examples import (
    DRAWN,
    SELECTIVE,
    example_cell,
    example_contexts,
    example_latents,
    write_examples,
)

from .results import TOPK, result

N = 40


@pytest.fixture
def latents() -> pd.DataFrame:
    fired = np.array([0] * 10 + [5] * 10 + [100] * 20)
    return pd.DataFrame({
        "latent": np.arange(N, dtype=np.int32), "density": fired / 1000, "n_fired": fired,
        "mean_activation": np.linspace(1.0, 2.0, N) * (fired > 0),
    })  # fmt: skip


def contexts(latent: int) -> pd.DataFrame:
    top = [("top", -1, rank, 9.0 - rank, document) for rank, document in enumerate((3, 3, 4, 5, 6))]
    sampled = [("quantile", q, r, 1.0 + q, 7) for q in range(5) for r in range(2)]
    frame = pd.DataFrame(
        top + sampled, columns=["kind", "quantile", "rank", "activation", "document"]
    )
    return frame.assign(
        latent=latent,
        position=4,
        context_before="one *two*",
        token=" <b>\n|",
        context_after=" x\ny",
    )


def test_latents_are_drawn_among_all_that_fire_and_ranked_among_the_frequent(
    latents: pd.DataFrame,
) -> None:
    chosen = example_latents(latents, seed=0)
    drawn = [k for group, k in chosen if group == "drawn"]
    selective = [k for group, k in chosen if group == "selective"]
    assert len(drawn) == DRAWN and min(drawn) >= 10 and any(k < 20 for k in drawn)
    rest = [k for k in range(N - 1, 19, -1) if k not in drawn]  # equally frequent: by their mean
    assert selective == rest[:SELECTIVE]
    assert chosen == example_latents(latents.sample(frac=1, random_state=0), seed=0)
    assert drawn != [k for group, k in example_latents(latents, seed=1) if group == "drawn"]


def test_a_latents_contexts_are_of_distinct_documents_and_of_weak_activations_too() -> None:
    shown = example_contexts(contexts(0))
    assert shown["activation"].tolist() == [9.0, 7.0, 6.0, 3.0, 1.0]
    assert example_contexts(contexts(0).head(2))["activation"].tolist() == [9.0]


def test_the_cell_is_of_the_lowest_target_and_the_least_fvu_there() -> None:
    fvu = {"x": 0.5, "a": 0.3, "b": 0.2, "c": 0.1, "u": 0.01}
    cells = [
        result(name, choices, {"fvu": (fvu[name], 0, 1)})
        for name, choices in {
            "x": {"expansion": 8, "penalty": "l1", "lambda": 1e-3},
            "a": TOPK,
            "b": TOPK | {"expansion": 4},
            "c": TOPK | {"k": 16},
            "u": {"baseline": "untrained", "activation": "topk", "k": 4, "expansion": 8},
        }.items()
    ]
    chosen = example_cell(cells)
    assert chosen is not None and chosen.name == "b"
    only = example_cell(cells[:1])
    assert only is not None and only.name == "x"
    assert example_cell(cells[-1:]) is None


def test_markdown_shows_text_as_it_is(tmp_path: Path, latents: pd.DataFrame) -> None:
    cell = result("a", TOPK, {"fvu": (0.1, 0, 1)}, spread=None)
    cell = type(cell)(**{**vars(cell), "evaluated": tmp_path})
    latents.to_parquet(tmp_path / "latents.parquet")
    pd.concat([contexts(k) for k in range(10, N)]).to_parquet(tmp_path / "contexts.parquet")
    pd.DataFrame({"latent": [39], "concept": ["token:a_b"], "M": [0.5]}).to_parquet(
        tmp_path / "monosemantic.parquet"
    )
    write_examples(tmp_path, [cell], seed=0)
    text = (tmp_path / "examples.md").read_text()
    assert r"- 9.00: one \*two\* <b>&lt;b&gt; \|</b> x y" in text
    assert r"- 1.00, sampled: one" in text
    table = pd.read_csv(tmp_path / "examples.csv")
    assert table["latent"].nunique() == DRAWN + SELECTIVE
    assert 39 in set(table["latent"])
    assert r"fires on 0.100 of the tokens; token:a\_b, M 0.500" in text
    pd.concat([contexts(k).assign(token=" \n") for k in range(10, N)]).to_parquet(
        tmp_path / "contexts.parquet"
    )
    write_examples(tmp_path, [cell], seed=0)
    assert "<b>␣⏎</b> x y" in (tmp_path / "examples.md").read_text()
    write_examples(tmp_path / "nothing", [], seed=0)
    assert not (tmp_path / "nothing").exists()
