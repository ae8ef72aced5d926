"""Steering: what is added, where, and what it does to predictions, beside plain references."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sae_repro.autoencoders import SAE, Weights
from sae_repro.corpus.tokenizers import word_level
from sae_repro.errors import StudyError
from sae_repro.params.hooks import HOOKS
from sae_repro.readers.subject import load_subject
from sae_repro.steering import (
    Intervention,
    continued,
    divergence,
    edit_of,
    output_score,
    predictions,
    promoted_tokens,
    steered,
)

V, D, K = 23, 16, 32
PLACES = [f"blocks.1.{name}" for name in HOOKS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steered")
    config = GPT2Config(
        vocab_size=V, n_positions=16, n_embd=D, n_layer=2, n_head=2, initializer_range=0.3,
        bos_token_id=1, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = GPT2LMHeadModel(config)
        torch.nn.init.normal_(model.transformer.ln_f.weight, 1.0)
        torch.nn.init.normal_(model.transformer.ln_f.bias, 1.0)
        model.save_pretrained(path)
    word_level([chr(97 + i) for i in range(V - 3)]).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def subject(folder: Path) -> Any:
    return load_subject(folder)


@pytest.fixture(scope="module")
def sae() -> SAE:
    w_dec = torch.randn(K, D, generator=torch.Generator().manual_seed(2))
    w_dec = torch.nn.functional.normalize(w_dec, dim=1)
    return SAE("topk", Weights(w_dec.T.contiguous(), torch.zeros(K), w_dec, torch.zeros(D)), k=5)


TOKENS = torch.tensor([[1, 5, 9, 3, 12, 7], [1, 4, 4, 20, 8, 11]])


def activations(subject: Any, tokens: torch.Tensor, hook: str) -> torch.Tensor:
    _, cache = subject.run_with_cache(tokens, names_filter=[hook])
    return cache[hook]


@pytest.mark.parametrize("hook", PLACES)
@pytest.mark.parametrize(("mode", "value"), [("clamp", None), ("add", 0.0), ("scale", 1.0)])
def test_a_latent_given_its_own_value_changes_no_logit(
    subject: Any, sae: SAE, hook: str, mode: Any, value: float | None
) -> None:
    tokens = TOKENS[:1, :2] if mode == "clamp" else TOKENS  # one value for all positions
    z_k = sae.encode(activations(subject, tokens, hook)[0, 1:2])[0]
    chosen = [*z_k.nonzero()[:, 0].tolist(), int((z_k == 0).nonzero()[0])]
    own = [Intervention(k, mode, float(z_k[k]) if value is None else value) for k in chosen]
    before = subject(tokens)
    with steered(subject, sae, hook, own):
        assert (subject(tokens) - before).abs().max() <= 1e-5


@pytest.mark.parametrize("hook", PLACES)
def test_the_difference_times_the_atom_is_added_behind_the_first_position(
    subject: Any, sae: SAE, hook: str
) -> None:
    interventions = [
        Intervention(3, "clamp", 2.5), Intervention(8, "add", -1.0), Intervention(9, "scale", 3.0),
        Intervention(11, "zero", 7.0),
    ]  # fmt: skip
    x_ntd = activations(subject, TOKENS, hook).clone()
    expected = x_ntd.clone()
    replaced = {3: lambda z: 2.5, 8: lambda z: z - 1.0, 9: lambda z: 3.0 * z, 11: lambda z: 0.0}
    for n in range(2):
        for t in range(1, TOKENS.shape[1]):
            z_k = sae.encode(x_ntd[n, t : t + 1])[0]
            for k, by in replaced.items():
                expected[n, t] += (by(float(z_k[k])) - float(z_k[k])) * sae.weights.W_dec[k]
    reference = subject.run_with_hooks(TOKENS, fwd_hooks=[(hook, lambda x, hook: expected)])
    before = subject(TOKENS)
    with steered(subject, sae, hook, interventions):
        logits = subject(TOKENS)
    torch.testing.assert_close(logits, reference, rtol=1e-4, atol=1e-4)
    assert (logits[:, 1:] - before[:, 1:]).abs().max() > 1e-2  # the hook is one that matters
    assert torch.equal(logits[:, 0], before[:, 0])
    assert torch.equal(subject(TOKENS), before)  # nothing of it stays


def test_massive_activations_are_left_alone(subject: Any, sae: SAE) -> None:
    hook = PLACES[2]
    norm_t = activations(subject, TOKENS[:1], hook)[0].norm(dim=1)
    last = TOKENS.shape[1] - 1
    limit = float(norm_t[1:].max()) - 1e-4
    massive = int(norm_t[1:].argmax()) + 1
    added: dict[int, torch.Tensor] = {}
    for norm_limit in (None, limit):
        with steered(subject, sae, hook, [Intervention(3, "add", 5.0)], norm_limit=norm_limit):
            added[norm_limit is None] = activations(subject, TOKENS[:1], hook)[0]
    moved = (added[True] - added[False]).norm(dim=1) > 1
    assert moved.tolist() == [t == massive for t in range(last + 1)]


def test_latents_that_are_none_or_named_twice_are_refused(subject: Any, sae: SAE) -> None:
    for latents, says in (([K], r"0 … 31"), ([-1], r"0 … 31"), ([3, 3], "named twice")):
        zeroed = steered(subject, sae, PLACES[0], [Intervention(k, "zero") for k in latents])
        with pytest.raises(StudyError, match=says), zeroed:
            pass


@pytest.mark.parametrize("hook", ["blocks.9.hook_resid_post", "blocks.1.hook_resid_pots", "mlp"])
def test_a_hook_that_the_model_lacks_is_refused(subject: Any, sae: SAE, hook: str) -> None:
    with (
        pytest.raises(StudyError, match=hook),
        steered(subject, sae, hook, [Intervention(1, "zero")]),
    ):
        pytest.fail("the passes would be those of the model as it is")


def test_an_unknown_mode_and_no_intervention_are_refused(sae: SAE) -> None:
    with pytest.raises(StudyError, match="mode 'set': must be one of clamp, add, scale, zero"):
        Intervention(1, "set")  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="no intervention"):
        edit_of(sae, [])


def test_the_likeliest_tokens_are_written(subject: Any) -> None:
    written = continued(subject, TOKENS, 5)
    for row in TOKENS:
        expected = row.tolist()
        for _ in range(5):
            expected.append(int(subject(torch.tensor([expected]))[0, -1].argmax()))
        assert written[TOKENS.tolist().index(row.tolist())].tolist() == expected


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_by_the_numbers_given(subject: Any, temperature: float) -> None:
    rows = TOKENS[:1].repeat(400, 1)
    uniform = np.linspace(0, 1, 400, endpoint=False)[:, None]
    drawn = continued(subject, rows, 1, temperature=temperature, uniform_nt=uniform)[:, -1]
    logits = subject(TOKENS[:1])[0, -1].double().numpy() / temperature
    probability = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    shares = np.bincount(drawn.numpy(), minlength=V) / 400
    np.testing.assert_allclose(shares, probability, atol=1 / 400 + 1e-9)
    assert (np.diff(drawn.numpy()) >= 0).all()


def test_divergence_and_output_score_are_those_of_the_formula(subject: Any, sae: SAE) -> None:
    clean = predictions(subject, TOKENS)
    with steered(subject, sae, PLACES[2], [Intervention(3, "clamp", 6.0)]):
        moved = predictions(subject, TOKENS)
    p, q = clean.exp().numpy(), moved.exp().numpy()
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-9)
    kl = divergence(clean, moved).numpy()
    np.testing.assert_allclose(kl, (p * np.log(p / q)).sum(axis=-1), rtol=1e-6, atol=1e-9)
    assert (kl[:, 0] > 1e-6).all() and not divergence(clean, clean).any()
    promoted = [2, 9, 17]

    def weighted(p_v: np.ndarray) -> float:
        order = np.argsort(-p_v).tolist()
        rank = min(order.index(token) for token in promoted)
        return float(p_v[order[rank]] * (1 - rank / V))

    expected = np.mean([weighted(q_v) - weighted(p_v) for p_v, q_v in zip(p[0], q[0], strict=True)])
    assert output_score(clean[0], moved[0], promoted) == pytest.approx(expected)


def test_promoted_tokens_are_those_the_atom_raises_through_the_final_norm(
    subject: Any, sae: SAE, folder: Path
) -> None:
    model = GPT2LMHeadModel.from_pretrained(folder)
    atom = sae.weights.W_dec[7]
    scaled = (atom - atom.mean()) * model.transformer.ln_f.weight
    raised = (model.lm_head.weight @ scaled).detach().numpy()
    assert promoted_tokens(subject, sae, 7, 6) == np.argsort(-raised)[:6].tolist()
