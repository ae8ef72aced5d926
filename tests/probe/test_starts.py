"""First tokens of rows, compared on a stand-in for a model whose losses and norms are known."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from sae_repro.corpus.tokenizers import byte_pairs
from sae_repro.probe.starts import POSITIONS, Measured, Start, best, compare, starts_of
from sae_repro.readers.documents import TokenDocuments

HOOK = "blocks.0.hook_resid_post"
VOCABULARY, PLAIN, GOOD, SINKY = 50, 1, 2, 3
STARTS = [Start(True, PLAIN, "a"), Start("b", GOOD, "b"), Start("c", SINKY, "c"),
          Start(False, None, "none")]  # fmt: skip


class Model:
    """Expects the next token by a margin that the row's first token decides.

    Behind `SINKY` the text's first token is a sink in rows where that is even; the first position
    is one everywhere, and so is padding.
    """

    cfg = SimpleNamespace(device="cpu")

    def run_with_cache(self, tokens: torch.Tensor, names_filter: list[str]) -> Any:
        margin = torch.where(tokens[:, 0] == GOOD, 4.0, 1.0)
        following = torch.nn.functional.one_hot(tokens.roll(-1, dims=1), VOCABULARY)
        norm = torch.ones(tokens.shape)
        norm[:, 0] = norm[tokens == 0] = 1000.0
        norm[:, 1][(tokens[:, 0] == SINKY) & (tokens[:, 1] % 2 == 0)] = 100.0
        x_bld = torch.stack([norm, torch.zeros_like(norm)], dim=-1)
        return following * margin[:, None, None], dict.fromkeys(names_filter, x_bld)


def corpus(lengths: list[int]) -> TokenDocuments:
    """Documents of increasing tokens, one of a row's length each, from 10 to 49."""
    tokens = np.concatenate(
        [np.empty(0), *(10 + (np.arange(n) + i) % 40 for i, n in enumerate(lengths))]
    )
    length = np.array(lengths, dtype=np.int64)
    frame = pd.DataFrame({"start": length.cumsum() - length, "length": length, "split": "train"})
    return TokenDocuments(Path(), tokens.astype(np.int32), frame)


def loss(margin: float) -> float:
    """−log softmax of the expected token."""
    return float(-margin + np.log(np.exp(margin) + VOCABULARY - 1))


def test_each_start_is_measured_on_the_same_tokens_of_the_text() -> None:
    # the shortest has no second token to be read and predicted, and is left out
    found = compare(Model(), corpus([30, 2, 5, 40]), STARTS, hooks=[HOOK], context=64,
                    limit=10, what="m")  # fmt: skip
    plain, good, sinky, none = found
    assert [m.loss for m in found] == pytest.approx([loss(1), loss(4), loss(1), loss(1)])
    assert all(len(m.loss_n) == 3 for m in found)
    assert (plain.sinks, good.sinks, none.sinks) == (0, 0, 0), "no first position, no padding"
    # of the documents 0, 2 and 3 the first token is even in two
    assert sinky.sinks == pytest.approx(2 / (2 * POSITIONS + 5))
    assert sinky.at == {1: pytest.approx(2 / 3)}
    assert best(found) is good


@pytest.mark.parametrize(
    ("lengths", "context"), [([2] * 9, 64), ([], 64), ([30] * 9, 2), ([30] * 9, 3), ([9], 64)]
)
def test_nothing_is_measured_where_no_two_rows_have_a_token_to_compare(
    lengths: list[int], context: int
) -> None:
    found = compare(Model(), corpus(lengths), STARTS, hooks=[HOOK], context=context, limit=10,
                    what="m")  # fmt: skip
    assert found == []


def test_rows_are_never_longer_than_the_context_with_their_start() -> None:
    class Short(Model):
        def run_with_cache(self, tokens: torch.Tensor, names_filter: list[str]) -> Any:
            assert tokens.shape[1] <= 8
            return super().run_with_cache(tokens, names_filter)

    found = compare(Short(), corpus([30, 7]), STARTS, hooks=[HOOK], context=8, limit=10, what="m")
    assert [m.loss for m in found] == pytest.approx([loss(1), loss(4), loss(1), loss(1)])


def test_heads_are_one_vector_or_each_its_own() -> None:
    class Heads(Model):
        """The last of two heads is a sink where the model is one."""

        def run_with_cache(self, tokens: torch.Tensor, names_filter: list[str]) -> Any:
            assert names_filter == [HOOK, place] or names_filter == [place]
            logits, cache = super().run_with_cache(tokens, names_filter)
            x_bld = cache[place]
            x_blhd = torch.stack([torch.ones_like(x_bld), x_bld], dim=2)
            return logits, {HOOK: torch.ones_like(x_bld), place: x_blhd}

    place = "blocks.0.attn.hook_z"
    for hooks, sinks in (
        ([HOOK, place], True), ([f"{place}.0", f"{place}.1"], True), ([f"{place}.0"], False),
    ):  # fmt: skip
        found = compare(Heads(), corpus([30, 40]), STARTS, hooks=hooks, context=64, limit=10,
                        what="m")  # fmt: skip
        assert (found[2].sinks > 0) == sinks, hooks


def measured(loss_n: list[float], sinks: float = 0.0) -> Measured:
    return Measured(STARTS[0], np.array(loss_n), sinks, {})


@pytest.mark.parametrize(
    ("other", "better"),
    [
        (measured([1.9, 2.8, 3.9]), True),
        (measured([1.0, 3.9, 3.9]), False),  # by less than the rows differ
        (measured([2.1, 3.1, 4.0]), False),
        (measured([1.0, 2.0, 3.0], sinks=0.01), False),
        (measured([2.0, 3.01, 4.0], sinks=-0.01), True),  # no clearly higher loss, fewer sinks
        (measured([3.0, 4.0, 5.1], sinks=-0.01), False),
    ],
)
def test_another_start_is_chosen_only_where_it_is_clearly_better(
    other: Measured, better: bool
) -> None:
    present = measured([2.0, 3.0, 4.0])
    assert (best([present, other]) is other) == better


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    made = byte_pairs(["some words"] * 9, 300)
    made.add_tokens(["<|endoftext|>", "<s>"], special_tokens=True)
    return PreTrainedTokenizerFast(tokenizer_object=made.backend_tokenizer, **special)


@pytest.mark.parametrize(
    ("special", "now", "expected"),
    [
        ({"bos_token": "<s>"}, None, [True, "<|endoftext|>", "<bos>", False]),
        ({"bos_token": "<s>"}, "<|endoftext|>", ["<|endoftext|>", True, "<bos>", False]),
        ({"bos_token": "<s>"}, False, [False, True, "<|endoftext|>", "<bos>"]),
        ({"eos_token": "<|endoftext|>"}, None, [True, "<s>", "<bos>", False]),
        ({"bos_token": "<s>", "eos_token": "<|endoftext|>"}, None,
         [True, "<|endoftext|>", "<bos>", False]),
        ({}, None, [False, "<|endoftext|>", "<s>", "<bos>"]),
    ],
)  # fmt: skip
def test_candidates_are_the_tokenizers_own_and_separators_that_it_knows(
    special: dict[str, str], now: bool | str | None, expected: list[bool | str]
) -> None:
    starts = list(starts_of(tokenizer(**special), now))
    assert [start.value for start in starts] == expected
    assert len({start.token for start in starts}) == len(starts)
    assert all((start.token is None) == (start.value is False) for start in starts)
