"""Ablation of single latents: planted effects, and a real model one pair at a time."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights
from sae_repro.evaluate.codes import Code, code_of
from sae_repro.evaluate.metrics.ablation import logits as ablation
from sae_repro.evaluate.metrics.ablation.logits import ablation_sparsity
from sae_repro.evaluate.passages import Passages

HOOK = "blocks.0.hook_resid_post"
BOS, VOCABULARY, D = 0, 9, 4
W, T = 12, 24


class Stub:
    """Logits are x·U of the activation x = E[token], or of its running sum over the row."""

    def __init__(self, unembedding: np.ndarray, *, remembers: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.embedding = torch.from_numpy(rng.integers(1, 4, (VOCABULARY, D)).astype(np.float32))
        self.unembedding = torch.from_numpy(unembedding.astype(np.float32))
        self.remembers = remembers

    def parameters(self) -> Iterator[torch.Tensor]:
        yield self.embedding

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return (x.cumsum(dim=1) if self.remembers else x) @ self.unembedding

    def run_with_cache(self, tokens: torch.Tensor, names_filter: list[str]) -> tuple:
        assert names_filter == [HOOK]
        x = self.embedding[tokens]
        return self._logits(x), {HOOK: x}

    def run_with_hooks(self, tokens: torch.Tensor, fwd_hooks: list[tuple]) -> torch.Tensor:
        [(name, hook)] = fwd_hooks
        assert name == HOOK
        return self._logits(hook(self.embedding[tokens], None))


def identity_sae() -> SAE:
    """Each dimension a latent, halved: what it leaves unexplained is the SAE's error."""
    return SAE("standard", Weights(torch.eye(D) / 2, torch.zeros(D), torch.eye(D), torch.zeros(D)))


def passages(seed: int = 0) -> Passages:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, VOCABULARY, (W, T))
    tokens[:, 0] = BOS
    length = rng.integers(17, T + 1, W)
    length[0] = 10  # no token of it has 15 behind it
    mask = (np.arange(T) > 0) & (np.arange(T) < length[:, None])
    row, column = np.nonzero(mask)
    index = np.stack([row, column - 1, tokens[row, column]], axis=1).astype(np.int32)
    return Passages(tokens, mask, length, np.arange(W), 1, index)


def measured(
    subject: object,
    sae: SAE,
    text: Passages,
    x: Callable[[np.ndarray], torch.Tensor],
    size: int = 10**6,
    order: np.ndarray | None = None,
) -> tuple:
    """Over a stream of the codes of x(index), in batches of `size`, rows in `order`."""
    index = text.index if order is None else text.index[order]

    def codes() -> Iterator[Code]:
        for start in range(0, len(index), size):
            part = index[start : start + size]
            yield code_of(sae.encode(x(part)), part)

    return ablation_sparsity(subject, sae, HOOK, codes, text, 0)


def on_stub(stub: Stub, **how: object) -> tuple:
    return measured(
        stub, identity_sae(), passages(), lambda index: stub.embedding[index[:, 2]], **how
    )


def test_a_latent_that_moves_one_logit_once_counts_one() -> None:
    one_logit = np.zeros((D, VOCABULARY))
    one_logit[np.arange(D), [0, 3, 5, 8]] = [1, 2, -3, 0.25]
    frame, summary = on_stub(Stub(one_logit))
    assert frame["ablation_effective_logits"].to_numpy() == pytest.approx(1.0, abs=1e-9)
    assert summary.metrics["ablation_effective_logits"] == pytest.approx(1.0)
    assert summary.metrics["ablation_sparsity"] == pytest.approx(1 / (VOCABULARY * 16))
    assert summary.counts["ablation_pairs_without_effect"] == 0
    # exactly z·d goes, not the whole reconstruction and not the error: half of the embedding
    assert set(np.unique(frame.loc[frame["latent"] == 0, "l1"])) <= {0.5, 1.0, 1.5}


def test_the_next_fifteen_positions_count_too() -> None:
    one_logit = np.eye(D, VOCABULARY)
    frame, _ = on_stub(Stub(one_logit, remembers=True))
    assert frame["ablation_effective_logits"].to_numpy() == pytest.approx(16.0)


def test_uniform_shift_of_all_logits_counts_as_no_effect() -> None:
    """Softmax does not see it: less the position's median nothing is left; excluded, counted."""
    shift = np.zeros((D, VOCABULARY))
    shift[0], shift[1, 2] = 1.0, 1.0
    frame, summary = on_stub(Stub(shift))
    nothing = frame["l2"] == 0
    assert (frame["latent"][nothing] != 1).all()
    assert (frame["latent"][~nothing] == 1).all()
    assert summary.counts["ablation_pairs_without_effect"] == nothing.sum() > 0
    assert summary.counts["ablation_pairs"] == (~nothing).sum() > 0
    assert summary.metrics["ablation_effective_logits"] == pytest.approx(1.0)


def test_only_tokens_with_fifteen_behind_them_are_taken() -> None:
    text = passages()
    frame, summary = on_stub(Stub(np.eye(D, VOCABULARY)))
    room = text.length[frame["document"]] - (frame["position"] + 1)
    assert room.min() == 16
    assert 0 not in frame["document"].tolist()
    eligible = sum(max(0, int(length) - 16) for length in text.length)
    assert summary.counts["ablation_pairs_eligible"] == eligible * D


@pytest.mark.parametrize("size,seed", [(1, 0), (7, 1), (50, 2)])
def test_neither_batches_nor_order_change_a_bit(
    size: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "PAIRS", 20)
    stub = Stub(np.random.default_rng(3).integers(-2, 3, (D, VOCABULARY)))
    frame, summary = on_stub(stub)
    order = np.random.default_rng(seed).permutation(len(passages().index))
    other_frame, other = on_stub(stub, size=size, order=order)
    assert len(frame) == 20
    assert frame.equals(other_frame)
    assert summary == other


def test_silent_latents_have_no_ablation_sparsity() -> None:
    silent = SAE("standard", Weights(torch.eye(D), torch.full((D,), -99.0), torch.eye(D),
                                     torch.zeros(D)))  # fmt: skip
    stub = Stub(np.eye(D, VOCABULARY))
    frame, summary = measured(stub, silent, passages(), lambda index: stub.embedding[index[:, 2]])
    assert frame.empty
    assert set(summary.metrics.values()) == {None}
    assert summary.counts["ablation_pairs"] == 0


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> object:
    from transformers import GPT2Config, GPT2LMHeadModel

    from sae_repro.corpus.tokenizers import word_level
    from sae_repro.readers.subject import load_subject

    folder = tmp_path_factory.mktemp("subject")
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=T, n_embd=D, n_layer=2, n_head=2,
                        initializer_range=0.5, bos_token_id=BOS, eos_token_id=BOS)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    word_level([chr(97 + i) for i in range(VOCABULARY - 3)]).save_pretrained(folder)
    return load_subject(folder)


def test_on_a_language_model_against_one_pair_at_a_time(
    bridge: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows cut short and passed together give what each whole row gives alone."""
    monkeypatch.setattr(ablation, "PAIRS", 24)
    monkeypatch.setattr(ablation, "ROWS", 5)
    text = passages()
    w = torch.from_numpy(np.random.default_rng(1).standard_normal((8, D)).astype(np.float32))
    sae = SAE("standard", Weights(w.T, torch.zeros(8), w, torch.full((D,), 0.1)))
    tokens = torch.from_numpy(text.tokens)
    with torch.no_grad():
        clean, cache = bridge.run_with_cache(tokens, names_filter=[HOOK])
    x = cache[HOOK]
    world = SimpleNamespace(row=text.index[:, 0], column=text.index[:, 1] + 1)
    rows = {tuple(place): i for i, place in enumerate(text.index[:, :2].tolist())}
    x_nd = x[world.row, world.column]

    def of(index: np.ndarray) -> torch.Tensor:
        return x_nd[[rows[tuple(place)] for place in index[:, :2].tolist()]]

    frame, summary = measured(bridge, sae, text, of)
    assert summary.counts["ablation_pairs"] == 24
    for pair in frame.itertuples():
        row, column = pair.document, pair.position + 1
        code = sae.encode(x[row, column][None])[0]
        without = code.clone()
        without[pair.latent] = 0
        error = x[row, column] - sae.decode(code[None])[0]

        def replace(activation: torch.Tensor, hook: object) -> torch.Tensor:
            result = activation.clone()
            result[0, column] = sae.decode(without[None])[0] + error  # noqa: B023
            return result

        with torch.no_grad():
            ablated = bridge.run_with_hooks(tokens[row : row + 1], fwd_hooks=[(HOOK, replace)])
        difference = (ablated[0] - clean[row])[column : column + 16].double().numpy()
        difference -= np.median(difference, axis=1, keepdims=True)
        l1, l2 = np.abs(difference).sum(), np.linalg.norm(difference)
        assert pair.l1 == pytest.approx(l1, rel=1e-3)
        assert pair.ablation_effective_logits == pytest.approx((l1 / l2) ** 2, rel=1e-3)
