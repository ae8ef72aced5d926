"""SAEs from elsewhere: read exactly as their library computes, or refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_repro.autoencoders import SAE, Weights, save
from sae_repro.autoencoders.interchange import export, import_sae
from sae_repro.autoencoders.interchange.configs import SAELENS_KEYS
from sae_repro.autoencoders.interchange.layouts import UNIT
from sae_repro.errors import StudyError

D, K, TOP = 6, 10, 3
CONFIG = {"saelens": "cfg.json", "sparsify": "cfg.json", "dictionary_learning": "config.json"}
FILE = {
    "saelens": "sae_weights.safetensors", "sparsify": "sae.safetensors",
    "dictionary_learning": "ae.pt", "gemma_scope": "params.npz",
}  # fmt: skip
FORMATS = sorted(FILE)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def x_nd() -> Tensor:
    return 2.0 * normal(9, 64, D)


def example(architecture: str = "topk") -> SAE:
    w_dec = torch.nn.functional.normalize(normal(2, K, D), dim=1)
    w = Weights(normal(0, D, K), 0.3 * normal(1, K), w_dec, normal(3, D))
    if architecture == "jumprelu":
        w.threshold = normal(4, K).abs()
    return SAE(architecture, w, k=TOP if architecture == "topk" else None)


def write(folder: Path, format: str) -> dict[str, Tensor]:
    """An SAE in `format`; its tensors."""
    if format == "gemma_scope":
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder, format, example("jumprelu").weights.named())
    else:
        export(example(), folder, format)
    return tensors(folder, format)


def tensors(folder: Path, format: str) -> dict[str, Tensor]:
    path = folder / FILE[format]
    if format == "gemma_scope":
        with np.load(path) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if format == "dictionary_learning":
        return dict(torch.load(path, weights_only=True))
    return load_file(path)


def write_tensors(folder: Path, format: str, state: dict[str, Tensor]) -> None:
    path = folder / FILE[format]
    if format == "gemma_scope":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    elif format == "dictionary_learning":
        torch.save(state, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path, match: str | None = None) -> str:
    with pytest.raises(StudyError, match=match) as caught:
        import_sae(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


SET = st.one_of(
    st.just(True), st.integers(1, 9), st.floats(0.1, 9), st.text("abc", min_size=1),
    st.lists(st.integers(), min_size=1), st.dictionaries(st.text("ab"), st.integers(), min_size=1),
)  # fmt: skip
UNSET = st.sampled_from([None, False, "", "none", [], {}])


@pytest.mark.parametrize("format", CONFIG)
@given(key=st.from_regex(r"new_[a-z_]{1,12}", fullmatch=True), value=SET, unset=UNSET)
@settings(max_examples=25, deadline=None)
def test_a_key_unknown_here_is_refused_by_name_once_it_is_set(
    format: str, key: str, value: object, unset: object
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, format)
        path = folder / CONFIG[format]

        def put(given: object) -> None:
            if format == "dictionary_learning":
                trainer = json.loads(path.read_text())["trainer"]
                edit(path, trainer=trainer | {key: given})
            else:
                edit(path, **{key: given})

        before = import_sae(folder).encode(x_nd())
        put(unset)
        assert torch.equal(import_sae(folder).encode(x_nd()), before)
        put(value)
        assert f"{key} = " in refused(folder, "may change what the SAE computes")


@pytest.mark.parametrize(
    ("format", "changes", "says"),
    [
        ("sparsify", {"signed": True}, "signed = true: the k largest |u|"),
        ("sparsify", {"transcode": True}, "a transcoder"),
        ("sparsify", {"skip_connection": True}, "a linear map"),
        ("sparsify", {"num_latents": K + 1}, "num_latents = 11, but the tensors have 10"),
        ("sparsify", {"d_in": D + 1}, "d_in = 7, but the tensors have 6"),
        ("sparsify", {"metadata": "x"}, "metadata = .x.: must be a mapping"),
        ("sparsify", {"k": True}, "k = True: allowed are 1"),
        ("sparsify", {"k": 3.0}, "k = 3.0: allowed are 1"),
        ("saelens", {"apply_b_dec_to_input": "false"}, "must be true or false"),
        ("saelens", {"rescale_acts_by_decoder_norm": "no"}, "must be true or false"),
        ("saelens", {"reshape_activations": "other"}, "reshape_activations = other"),
        ("saelens", {"d_sae": 2 * K}, "d_sae = 20, but the tensors have 10"),
        ("saelens", {"d_out": D}, "a transcoder"),
        ("saelens", {"activation_fn_str": "relu"}, "architecture = topk with relu"),
        ("saelens", {"activation_fn_kwargs": {"k": TOP + 1}}, "activation_fn_kwargs.k = 4"),
        ("saelens", {"activation_fn_kwargs": {"k": TOP, "postact_fn": "tanh"}},
         "activation_fn_kwargs.postact_fn"),
        ("saelens", {"normalize_activations": "layer_norm"}, "use sae_lens itself"),
        ("saelens", {"finetuning_scaling_factor": True}, "z is scaled once more"),
        ("saelens", {"architecture": "matching_pursuit"}, "can't be read here"),
        ("dictionary_learning", {"buffer": {"io": "in_and_out"}}, "a transcoder"),
        ("dictionary_learning", {"trainer": 3}, "trainer = 3: must be a mapping"),
    ],
)  # fmt: skip
def test_what_changes_the_function_is_refused(
    format: str, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    write(tmp_path, format)
    edit(tmp_path / CONFIG[format], **changes)
    assert says.replace(".x.", '"x"') in refused(tmp_path)


def test_two_values_of_k_are_refused(tmp_path: Path) -> None:
    state = write(tmp_path, "dictionary_learning")
    write_tensors(tmp_path, "dictionary_learning", state | {"k": torch.tensor(TOP + 1)})
    refused(tmp_path, "trainer.k = 3, but .*ae.pt has k = 4")


@pytest.mark.parametrize(
    ("format", "changes"),
    [
        ("sparsify", {"signed": False, "multi_topk": True, "normalize_decoder": False}),
        ("saelens", {"prepend_bos": True, "hook_head_index": 3, "seqpos_slice": [None],
                     "model_from_pretrained_kwargs": {"center_writing_weights": False},
                     "l1_coefficient": 5.0, "lp_norm": 1, "noise_scale": 0.1, "seed": 42,
                     "activation_fn_str": "topk", "activation_fn_kwargs": {"k": TOP},
                     "reshape_activations": "hook_z", "dtype": "bfloat16"}),
    ],
)  # fmt: skip
def test_keys_of_training_and_provenance_change_nothing(
    format: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path, format)
    before = import_sae(tmp_path).encode(x_nd())
    edit(tmp_path / CONFIG[format], **changes)
    assert torch.equal(import_sae(tmp_path).encode(x_nd()), before)


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_value_that_is_not_finite_is_refused_with_its_place(
    format: str, data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        state = write(folder, format)
        floats = sorted(n for n, t in state.items() if t.is_floating_point())
        chosen = data.draw(st.sampled_from(floats))
        tensor = state[chosen].clone()
        places = st.integers(0, tensor.numel() - 1)
        flat = tensor.view(-1)
        at = sorted(data.draw(st.lists(places, min_size=1, max_size=3, unique=True)))
        for place in at:
            flat[place] = data.draw(st.sampled_from([float("nan"), float("inf"), -float("inf")]))
        write_tensors(folder, format, state | {chosen: tensor})
        first = [int(i) for i in np.unravel_index(at[0], tensor.shape)] if tensor.dim() else []
        message = refused(folder)
        assert f"{chosen} has {len(at)} of {tensor.numel()} values" in message
        assert f"the first at {first};" in message


def _turned(t: Tensor) -> Tensor:
    return t.T if t.dim() == 2 else t[None]


BREAKS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "the other way round": (_turned, "shapes don't fit"),
    "too long": (lambda t: torch.cat([t, t]), "shapes don't fit"),
    "empty": (lambda t: t[:0], "shapes don't fit"),
    "one dimension more": (lambda t: t[..., None], "shapes don't fit"),
    "whole numbers": (lambda t: t.to(torch.int32), "is of torch.int32"),
    "bytes": (lambda t: t.to(torch.uint8), "is of torch.uint8"),
    "too large": (lambda t: t.double() + 1e300, "too large for float32"),
}


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_tensor_of_another_shape_or_type_is_refused_by_name(
    format: str, name: str, tmp_path: Path
) -> None:
    change, says = BREAKS[name]
    state = write(tmp_path, format)
    used = [n for n, t in state.items() if t.dim()]
    for chosen in used:
        write_tensors(tmp_path, format, state | {chosen: change(state[chosen])})
        assert says in refused(tmp_path)
        if says != "shapes don't fit":
            assert f" {chosen} " in refused(tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_missing_prefixed_and_extra_tensors_are_named(format: str, tmp_path: Path) -> None:
    state = write(tmp_path, format)
    for chosen in (n for n, t in state.items() if t.dim()):
        others = {n: t for n, t in state.items() if n != chosen}
        write_tensors(tmp_path, format, others)
        refused(tmp_path, f"it lacks {chosen}$")
        write_tensors(tmp_path, format, others | {f"_orig_mod.{chosen}": state[chosen]})
        refused(tmp_path, f"it lacks {chosen}; it has unsupported _orig_mod.{chosen}$")
    write_tensors(tmp_path, format, state | {"W_skip": torch.zeros(D, D)})
    refused(tmp_path, "unsupported W_skip")


def test_a_signed_sae_is_not_what_topk_computes() -> None:
    """The reason for the refusal: with the sign, other latents and other values."""
    sae = example()
    u = (x_nd() - sae.weights.b_dec) @ sae.weights.W_enc + sae.weights.b_enc
    chosen = u.abs().topk(TOP).indices
    signed = torch.zeros_like(u).scatter(1, chosen, u.gather(1, chosen))
    assert float((signed - sae.encode(x_nd())).abs().max()) > 0.5


@given(
    common=st.floats(0.05, 20),
    spread=st.floats(0.01, 0.5),
    rescale=st.booleans(),
    zero_row=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_topk_with_other_norms_is_read_where_it_is_exact(
    common: float, spread: float, rescale: bool, zero_row: bool
) -> None:
    """With one norm for all rows, or where the norm takes part in the choice."""
    sae = example()
    norm_k = common * (1 + spread * torch.linspace(-1, 1, K))
    with TemporaryDirectory() as name:
        folder = Path(name)
        for norms, is_exact in ((torch.full((K,), common), True), (norm_k, rescale)):
            w_dec = sae.weights.W_dec * norms[:, None]
            if zero_row:
                w_dec[4] = 0
            save(SAE("topk", Weights(sae.weights.W_enc, sae.weights.b_enc, w_dec,
                                     sae.weights.b_dec), k=TOP), folder)  # fmt: skip
            edit(folder / "cfg.json", rescale_acts_by_decoder_norm=rescale)
            if not is_exact:
                refused(folder, r"unit rows would choose other latents")
                continue
            u = (x_nd() - sae.weights.b_dec) @ sae.weights.W_enc + sae.weights.b_enc
            norm = w_dec.norm(dim=1)
            score = u * norm if rescale else u
            values, chosen = score.topk(TOP)
            z = torch.zeros_like(u).scatter(1, chosen, values.relu())
            inverse = torch.where(norm > 0, 1 / norm, 0.0) if rescale else torch.ones(K)
            x_hat = (z * inverse) @ w_dec + sae.weights.b_dec
            ours = import_sae(folder)
            rows = ours.weights.W_dec.norm(dim=1)
            assert bool((((rows - 1).abs() < UNIT) | (rows == 0)).all())
            torch.testing.assert_close(
                ours.decode(ours.encode(x_nd())), x_hat, rtol=1e-4, atol=1e-4
            )


def test_unit_rows_would_choose_other_latents() -> None:
    """The reason for the refusal: norms moved to the encoder change the choice."""
    sae, norm_k = example(), 0.5 + torch.arange(K) / K
    u = (x_nd() - sae.weights.b_dec) @ sae.weights.W_enc + sae.weights.b_enc
    chosen, moved = u.topk(TOP).indices, (u * norm_k).topk(TOP).indices
    assert not torch.equal(chosen.sort().values, moved.sort().values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("case", ["W", "w"])
def test_gemma_scope_computes_the_same(dtype: Any, case: str, tmp_path: Path) -> None:
    """Norms of rows are not 1 there; u is taken of x, not of x − b_dec."""
    w = {
        "W_enc": normal(0, D, K), "W_dec": 3 * normal(2, K, D), "b_enc": normal(1, K),
        "b_dec": normal(3, D), "threshold": normal(4, K).abs(),
    }  # fmt: skip
    arrays = {name.replace("W", case): t.numpy().astype(dtype) for name, t in w.items()}
    np.savez(tmp_path / "params.npz", **arrays)
    w = {name: torch.from_numpy(arrays[name.replace("W", case)]).float() for name in w}
    u = x_nd() @ w["W_enc"] + w["b_enc"]
    z = torch.where(u > w["threshold"], u, 0.0).relu()
    sae = import_sae(tmp_path)
    norms = w["W_dec"].norm(dim=1)
    torch.testing.assert_close(sae.encode(x_nd()), z * norms, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        sae.decode(sae.encode(x_nd())), z @ w["W_dec"] + w["b_dec"], rtol=1e-5, atol=1e-4
    )
    assert float((sae.weights.W_dec.norm(dim=1) - 1).abs().max()) < 1e-5
    save(sae, tmp_path)  # a study's copy of it
    assert torch.equal(import_sae(tmp_path).encode(x_nd()), sae.encode(x_nd()))


def test_a_damaged_archive_and_one_with_objects_are_refused(tmp_path: Path) -> None:
    state = write(tmp_path, "gemma_scope")
    path = tmp_path / "params.npz"
    path.write_bytes(path.read_bytes()[:100])
    refused(tmp_path, r"params\.npz: damaged")
    path.write_text("<html>")
    refused(tmp_path, r"params\.npz: damaged")
    np.savez(path, **{n: t.numpy() for n, t in state.items()}, more=np.array([{}], dtype=object))
    refused(tmp_path, "holds more than arrays of numbers")


@pytest.mark.parametrize("version", ["2", "3 to 5", "6"])
def test_the_configurations_of_saelens_are_read(version: str, tmp_path: Path) -> None:
    """Every field of its releases, with the values it writes."""
    old = {
        "activation_fn": "relu", "apply_b_dec_to_input": True, "b_dec_init_method": "zeros",
        "d_in": D, "d_sae": K, "hook_point": "blocks.1.hook_resid_pre", "hook_point_layer": 1,
        "hook_point_head_index": None, "normalize_activations": False, "mse_loss_normalization":
        "dense_batch", "prepend_bos": True, "noise_scale": 0.0, "model_kwargs": {"x": 1},
        "sae_lens_version": "2.1.3", "device": "cuda", "dtype": "torch.float32",
    }  # fmt: skip
    middle = {
        "architecture": "standard", "activation_fn_str": "relu", "activation_fn_kwargs": {},
        "apply_b_dec_to_input": False, "context_size": 64, "d_in": D, "d_sae": K,
        "finetuning_scaling_factor": False, "hook_name": "blocks.1.hook_resid_pre",
        "hook_layer": 1, "hook_head_index": None, "model_name": "gpt2", "prepend_bos": True,
        "dataset_path": "x", "dataset_trust_remote_code": True, "normalize_activations": "none",
        "dtype": "float32", "device": "cpu", "sae_lens_training_version": "5.1.0",
        "neuronpedia_id": "a/b", "model_from_pretrained_kwargs": {"fold_ln": True},
        "seqpos_slice": [None], "l1_coefficient": 5, "lp_norm": 1.0, "use_ghost_grads": False,
        "normalize_sae_decoder": False, "jumprelu_init_threshold": 0.001,
        "jumprelu_bandwidth": 0.001, "decoder_heuristic_init": True,
        "decoder_heuristic_init_norm": 0.1, "scale_sparsity_penalty_by_decoder_norm": True,
    }  # fmt: skip
    sae = example("standard")
    save(sae, tmp_path)
    if version != "6":
        config = old if version == "2" else middle
        (tmp_path / "cfg.json").write_text(json.dumps(config))
    again = import_sae(tmp_path)
    assert again.apply_b_dec_to_input == (version != "3 to 5")
    torch.testing.assert_close(again.weights.W_enc, sae.weights.W_enc)


@pytest.mark.parametrize(
    "name", ["standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk"]
)
def test_every_field_of_the_installed_saelens_is_known(name: str) -> None:
    """A new field of theirs must be looked at: does it change the function?"""
    pytest.importorskip("sae_lens")
    from sae_lens.registry import get_sae_class, get_sae_training_class

    classes = [get_sae_training_class(name)[1]]
    if name in ("standard", "topk", "jumprelu", "gated"):
        classes.append(get_sae_class(name)[1])
    for config in classes:
        assert config(d_in=D, d_sae=K).to_dict().keys() - SAELENS_KEYS == set()
