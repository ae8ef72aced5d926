"""SAEs of other libraries and ours for them: the same z and x̂ on both sides, or a refusal."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from sae_repro.autoencoders import SAE, Weights, load, save
from sae_repro.autoencoders.interchange import FORMATS, export, import_release, import_sae
from sae_repro.autoencoders.interchange.layouts import with_input_bias
from sae_repro.cli import app
from sae_repro.errors import StudyError

D, K, TOP = 12, 24, 4
ARCHITECTURES = ("standard", "topk", "jumprelu", "batchtopk", "gated")
METADATA = {"model_name": "m", "hook_name": "blocks.3.hook_resid_post", "context_size": 64}
CLASS = {
    "standard": "AutoEncoder", "topk": "AutoEncoderTopK", "jumprelu": "JumpReluAutoEncoder",
    "gated": "GatedAutoEncoder",
}  # fmt: skip
runner = CliRunner()


def example(architecture: str, apply: bool = True) -> SAE:
    """An SAE with unit rows; `batchtopk` is the jumprelu with one threshold."""
    g = torch.Generator().manual_seed(0)
    w = Weights(*(torch.randn(s, generator=g) for s in ((D, K), (K,), (K, D), (D,))))
    w.W_dec /= w.W_dec.norm(dim=1, keepdim=True)
    if architecture == "jumprelu":
        w.threshold = torch.rand(K, generator=g)
    if architecture == "batchtopk":
        w.threshold = torch.full((K,), 0.7)
    if architecture == "gated":
        w.b_mag, w.r_mag = torch.randn(K, generator=g), 0.3 * torch.randn(K, generator=g)
    return SAE(
        architecture="jumprelu" if architecture == "batchtopk" else architecture,
        weights=w,
        apply_b_dec_to_input=apply,
        k=TOP if architecture == "topk" else None,
        metadata=METADATA,
    )


def activations() -> Tensor:
    return 2.0 * torch.randn(64, D, generator=torch.Generator().manual_seed(1))


def norms() -> Tensor:
    return 0.5 + torch.rand(K, generator=torch.Generator().manual_seed(2))


def assert_alike(a: SAE, b: SAE) -> None:
    x = activations()
    z = a.encode(x)
    assert 0 < float((z > 0).double().mean()) < 1
    torch.testing.assert_close(b.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(b.decode(z), a.decode(z), rtol=1e-5, atol=1e-5)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def scale_rows(folder: Path, file: str, names: tuple[str, ...]) -> None:
    """Rows of the decoder × c, encoder (and what goes with it) / c: the same x̂."""
    c = norms()
    state = (
        torch.load(folder / file, weights_only=True)
        if file == "ae.pt"
        else load_file(folder / file)
    )
    for name in names:
        factor = c if name.lower().endswith(("w_dec", "decoder.weight")) else 1 / c
        along_rows = name in ("W_dec", "encoder.weight")
        state[name] = (state[name] * (factor[:, None] if along_rows else factor)).contiguous()
    if file == "ae.pt":
        torch.save(state, folder / file)
    else:
        save_file(state, folder / file)


@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("format", FORMATS)
def test_export_and_import_give_the_same_sae(
    format: str, architecture: str, apply: bool, tmp_path: Path
) -> None:
    sae, folder = example(architecture, apply), tmp_path / "theirs"
    if format == "sparsify" and architecture != "topk":
        with pytest.raises(StudyError, match=r"holds TopK only.*export a topk cell"):
            export(sae, folder, format)
        assert not folder.exists()
        return
    export(sae, folder, format)
    again = import_sae(folder)
    assert (again.architecture, again.k, again.metadata) == (sae.architecture, sae.k, METADATA)
    assert_alike(sae, again)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_input_bias_moves_exactly(architecture: str) -> None:
    sae = example(architecture)
    moved = with_input_bias(sae, False)
    assert not moved.apply_b_dec_to_input
    assert_alike(sae, moved)
    assert_alike(sae, with_input_bias(moved, True))


def linear(x: Tensor, s: dict[str, Tensor], bias: str) -> Tensor:
    return (x - s[bias]) @ s["encoder.weight"].T


def auto_encoder(x: Tensor, s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    z = torch.relu(linear(x, s, "bias") + s["encoder.bias"])
    return z, z @ s["decoder.weight"].T + s["bias"]


def top_k(x: Tensor, s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    u = torch.relu(linear(x, s, "b_dec") + s["encoder.bias"])
    z = torch.where(u >= u.sort(dim=1).values[:, -int(s["k"])][:, None], u, 0.0)
    return z, z @ s["decoder.weight"].T + s["b_dec"]


def jump_relu(x: Tensor, s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    u = x @ s["W_enc"] + s["b_enc"]
    z = torch.relu(u * (u > s["threshold"]))
    return z, z @ s["W_dec"] + s["b_dec"]


def gated(x: Tensor, s: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    a = linear(x, s, "decoder_bias")
    z = (a + s["gate_bias"] > 0) * torch.relu(a * s["r_mag"].exp() + s["mag_bias"])
    return z, z @ s["decoder.weight"].T + s["decoder_bias"]


@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize(
    ("architecture", "formula"),
    [("standard", auto_encoder), ("topk", top_k), ("jumprelu", jump_relu),
     ("batchtopk", jump_relu), ("gated", gated)],
)  # fmt: skip
def test_dictionary_learnings_classes_compute_the_same(
    architecture: str, formula: Any, apply: bool, tmp_path: Path
) -> None:
    sae, x = example(architecture, apply), activations()
    export(sae, tmp_path / "a", "dictionary_learning")
    state = torch.load(tmp_path / "a/ae.pt", weights_only=True)
    z, x_hat = formula(x, state)
    torch.testing.assert_close(z, sae.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x_hat, sae.decode(sae.encode(x)), rtol=1e-5, atol=1e-5)
    trainer = json.loads((tmp_path / "a/config.json").read_text())["trainer"]
    assert trainer["dict_class"] == CLASS[sae.architecture]
    assert (trainer["activation_dim"], trainer["dict_size"]) == (D, K)
    assert (trainer["layer"], trainer["lm_name"]) == (3, "m")
    assert trainer.get("k") == sae.k


@pytest.mark.parametrize("apply", [True, False])
def test_sparsify_computes_the_same(apply: bool, tmp_path: Path) -> None:
    sae, x = example("topk", apply), activations()
    export(sae, tmp_path / "a", "sparsify")
    s = load_file(tmp_path / "a/sae.safetensors")
    values, chosen = torch.relu(linear(x, s, "b_dec") + s["encoder.bias"]).topk(TOP)
    z = torch.zeros(len(x), K).scatter(1, chosen, values)
    torch.testing.assert_close(z, sae.encode(x), rtol=1e-5, atol=1e-5)
    x_hat = z @ s["W_dec"] + s["b_dec"]
    torch.testing.assert_close(x_hat, sae.decode(z), rtol=1e-5, atol=1e-5)
    config = json.loads((tmp_path / "a/cfg.json").read_text())
    assert (config["k"], config["num_latents"], config["d_in"]) == (TOP, K, D)


@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saelens_loads_the_export_and_encodes_alike(
    architecture: str, apply: bool, tmp_path: Path
) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    sae, x = example(architecture, apply), activations()
    export(sae, tmp_path / "ours", "saelens")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "ours")
    torch.testing.assert_close(theirs.encode(x), sae.encode(x), rtol=1e-5, atol=1e-5)
    theirs.save_model(tmp_path / "theirs")
    again = import_sae(tmp_path / "theirs")
    assert again.metadata["hook_name"] == METADATA["hook_name"]
    assert_alike(sae, again)


NORMED = {
    "standard": ("W_dec", "W_enc", "b_enc"),
    "jumprelu": ("W_dec", "W_enc", "b_enc", "threshold"),
    "gated": ("W_dec", "W_enc", "b_gate", "b_mag"),
}


@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize("architecture", NORMED)
def test_rows_become_unit_and_z_keeps_its_units(
    architecture: str, apply: bool, tmp_path: Path
) -> None:
    sae = example(architecture, apply)
    export(sae, tmp_path / "a", "saelens")
    scale_rows(tmp_path / "a", "sae_weights.safetensors", NORMED[architecture])
    stored = load_file(tmp_path / "a/sae_weights.safetensors")
    assert float((stored["W_dec"].norm(dim=1) - 1).abs().max()) > 0.1
    assert_alike(sae, import_sae(tmp_path / "a"))


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("standard", ("decoder.weight", "encoder.weight", "encoder.bias")),
        ("jumprelu", ("W_dec", "W_enc", "b_enc", "threshold")),
        ("gated", ("decoder.weight", "encoder.weight", "gate_bias", "mag_bias")),
    ],
)
def test_rows_of_dictionary_learning_become_unit_too(
    architecture: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    sae = example(architecture)
    export(sae, tmp_path / "a", "dictionary_learning")
    scale_rows(tmp_path / "a", "ae.pt", names)
    assert_alike(sae, import_sae(tmp_path / "a"))


def test_zero_rows_are_left_alone(tmp_path: Path) -> None:
    sae = example("standard")
    sae.weights.W_dec[5] = 0.0
    export(sae, tmp_path / "a", "dictionary_learning")
    again = import_sae(tmp_path / "a")
    assert not again.weights.W_dec[5].any()
    assert_alike(sae, again)


def test_topk_with_rows_of_other_norms_is_refused_or_folded_where_it_is_exact(
    tmp_path: Path,
) -> None:
    sae, a = example("topk"), tmp_path / "a"
    export(sae, a, "saelens")
    scale_rows(a, "sae_weights.safetensors", ("W_dec", "W_enc", "b_enc"))
    with pytest.raises(StudyError, match=r"choose other\s+latents"):
        import_sae(a)
    edit(a / "cfg.json", lambda c: c.update(rescale_acts_by_decoder_norm=True))
    again = import_sae(a)
    assert_alike(sae, again)
    try:
        import sae_lens
    except ImportError:
        return
    x = activations()
    theirs = sae_lens.SAE.load_from_disk(a)
    torch.testing.assert_close(theirs.encode(x), again.encode(x), rtol=1e-5, atol=1e-5)


def test_topk_stored_in_half_precision_counts_as_unit(tmp_path: Path) -> None:
    sae, a = example("topk"), tmp_path / "a"
    export(sae, a, "sparsify")
    state = load_file(a / "sae.safetensors")
    save_file({n: t.bfloat16() for n, t in state.items()}, a / "sae.safetensors")
    again = import_sae(a)
    assert {t.dtype for t in again.weights.named().values()} == {torch.float32}
    chosen, expected = again.encode(activations()) > 0, sae.encode(activations()) > 0
    assert float((chosen == expected).double().mean()) > 0.99


@pytest.mark.parametrize("dict_class", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE", "AutoEncoderNew"])
def test_classes_that_are_only_read(dict_class: str, tmp_path: Path) -> None:
    """Their thresholds are scalars; AutoEncoderNew has its bias in the decoder's layer."""
    sae = example("standard" if dict_class == "AutoEncoderNew" else "batchtopk")
    w = sae.weights
    state = {"encoder.weight": w.W_enc.T, "encoder.bias": w.b_enc, "decoder.weight": w.W_dec.T}
    if dict_class == "AutoEncoderNew":
        sae = replace(sae, apply_b_dec_to_input=False)
        state |= {"decoder.bias": w.b_dec}
    else:
        more = {"b_dec": w.b_dec, "k": torch.tensor(4), "threshold": torch.tensor(0.7)}
        if dict_class == "MatryoshkaBatchTopKSAE":
            state = {"W_enc": w.W_enc, "b_enc": w.b_enc, "W_dec": w.W_dec}
            more |= {"group_sizes": torch.tensor([8, 16])}
        state |= more
    torch.save(state, tmp_path / "ae.pt")
    trainer = {"dict_class": dict_class, "k": 4, "lm_name": "gpt2", "layer": 5}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": None}))
    again = import_sae(tmp_path)
    assert again.k is None
    assert again.metadata == {"model_name": "gpt2", "layer": 5}
    assert_alike(sae, again)


@pytest.mark.parametrize("rescale", [True, False])
def test_saelens_checkpoints_of_batchtopk(rescale: bool, tmp_path: Path) -> None:
    """τ is one of u·‖d‖ under rescaling (whose z is u·‖d‖ too), else one of u."""
    sae = example("batchtopk")
    w, c = sae.weights, norms()
    state = {
        "W_enc": w.W_enc / c, "b_enc": w.b_enc / c, "W_dec": w.W_dec * c[:, None],
        "b_dec": w.b_dec, "topk_threshold": torch.tensor(0.7, dtype=torch.double),
    }  # fmt: skip
    if not rescale:
        sae = replace(sae, weights=replace(w, threshold=0.7 * c))
    save_file(state, tmp_path / "sae_weights.safetensors")
    config = {"architecture": "batchtopk", "d_in": D, "d_sae": K, "k": 4,
              "rescale_acts_by_decoder_norm": rescale, "metadata": METADATA}  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    again = import_sae(tmp_path)
    assert again.architecture == "jumprelu"
    assert_alike(sae, again)


def test_saelens_before_version_6(tmp_path: Path) -> None:
    """No metadata, no apply_b_dec_to_input, TopK as an activation function of `standard`."""
    sae = example("topk")
    save(sae, tmp_path)
    state = load_file(tmp_path / "sae_weights.safetensors")
    save_file(state | {"scaling_factor": torch.ones(K)}, tmp_path / "sae_weights.safetensors")
    config = {
        "d_in": D, "d_sae": K, "hook_point": "blocks.1.hook_resid_pre", "model_name": "gpt2-small",
        "activation_fn_str": "topk", "activation_fn_kwargs": {"k": TOP}, "l1_coefficient": 1.0,
        "normalize_activations": False,
    }  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    again = import_sae(tmp_path)
    assert again.metadata == {"hook_name": "blocks.1.hook_resid_pre", "model_name": "gpt2-small"}
    assert_alike(sae, again)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"normalize_activations": "expected_average_only_in"}, "fold_activation_norm_scaling"),
        ({"normalize_activations": True}, "fold_activation_norm_scaling"),
        ({"normalize_activations": "layer_norm"}, "use sae_lens itself"),
        ({"normalize_activations": "constant_norm_rescale"}, "use sae_lens itself"),
        ({"normalize_activations": "covariance_whitening"}, "fold it with sae_lens"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
        ({"architecture": "transcoder"}, "architecture = transcoder: can't be read"),
        ({"architecture": "standard", "activation_fn_str": "tanh-relu"}, "with tanh-relu"),
        ({"architecture": "gated"}, r"lacks b_gate, b_mag, r_mag; it has unsupported b_enc"),
    ],
)
def test_input_normalisation_that_weights_cannot_hold_is_refused(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    save(example("standard"), tmp_path)
    edit(tmp_path / "cfg.json", lambda c: c.update(change))
    with pytest.raises(StudyError, match=says) as caught:
        import_sae(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_classes_that_are_no_sae_are_refused(tmp_path: Path) -> None:
    export(example("topk"), tmp_path / "s", "sparsify")
    export(example("topk"), tmp_path / "d", "dictionary_learning")
    for folder, change, says in (
        ("s/cfg.json", lambda c: c.update(transcode=True), "a transcoder"),
        ("s/cfg.json", lambda c: c.update(transcode=False, activation="groupmax"), "groupmax"),
        ("s/cfg.json", lambda c: c.update(activation="topk", k=99), r"allowed are 1 … 24"),
        (
            "d/config.json",
            lambda c: c["trainer"].update(dict_class="IdentityDict"),
            "read are Auto",
        ),
        ("d/config.json", lambda c: c.pop("trainer"), "dict_class = None"),
    ):
        edit(tmp_path / folder, change)
        with pytest.raises(StudyError, match=says):
            import_sae((tmp_path / folder).parent)


def test_an_unknown_folder_names_the_files_expected(tmp_path: Path) -> None:
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(StudyError, match=r"sae_weights\.safetensors.*ae\.pt.*sae\.safetensors"):
        import_sae(tmp_path)


class Code:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    export(example("standard"), tmp_path / "a", "dictionary_learning")
    torch.save({"bias": Code(tmp_path / "ran")}, tmp_path / "a/ae.pt")
    with pytest.raises(StudyError, match=r"ae\.pt: damaged, or it holds more than tensors"):
        import_sae(tmp_path / "a")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("format", "file"),
    [("saelens", "cfg.json"), ("saelens", "sae_weights.safetensors"),
     ("dictionary_learning", "ae.pt"), ("sparsify", "sae.safetensors")],
)  # fmt: skip
def test_damaged_files_are_named(format: str, file: str, tmp_path: Path) -> None:
    export(example("topk"), tmp_path / "a", format)
    path = tmp_path / "a" / file
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StudyError, match=rf"{file}: damaged"):
        import_sae(tmp_path / "a")


def test_tensors_that_do_not_fit_each_other(tmp_path: Path) -> None:
    export(example("standard"), tmp_path / "a", "dictionary_learning")
    state = torch.load(tmp_path / "a/ae.pt", weights_only=True)
    torch.save(state | {"bias": torch.zeros(D + 1)}, tmp_path / "a/ae.pt")
    with pytest.raises(StudyError, match="shapes don't fit"):
        import_sae(tmp_path / "a")
    torch.save([1.0], tmp_path / "a/ae.pt")
    with pytest.raises(StudyError, match="no state dict"):
        import_sae(tmp_path / "a")


def test_export_overwrites_no_existing_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    export(example("topk"), tmp_path / "mine", "saelens")  # an empty folder may be there
    with pytest.raises(StudyError, match="not an empty folder"):
        export(example("topk"), tmp_path / "mine", "sparsify")
    assert load(tmp_path / "mine").k == TOP
    with pytest.raises(StudyError, match=r"'onnx': unknown; allowed: saelens"):
        export(example("topk"), tmp_path / "other", "onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_without_the_hub_a_release_is_one_error_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("sae_lens")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(StudyError, match=r"gpt2-small-res-jb:x: the hub .* can't be reached"):
        import_release("gpt2-small-res-jb", "x")
    assert time.monotonic() - began < 10


def test_a_release_goes_through_saelens(monkeypatch: pytest.MonkeyPatch) -> None:
    sae_lens, sae = pytest.importorskip("sae_lens"), example("jumprelu")

    def from_pretrained(release: str, sae_id: str) -> Any:
        if sae_id != "known":
            raise ValueError(f"ID {sae_id} not found in release {release}.")
        return Saved()

    class Saved:
        def save_model(self, folder: Path) -> None:
            save(sae, folder)

    monkeypatch.setattr("sae_repro.autoencoders.interchange.reachable", lambda what: None)
    monkeypatch.setattr(sae_lens.SAE, "from_pretrained", from_pretrained)
    assert_alike(sae, import_release("some-release", "known"))
    with pytest.raises(StudyError, match=r"some-release:other: SAELens has no such SAE"):
        import_release("some-release", "other")


def test_without_saelens_a_release_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(StudyError, match=r"pip install 'sae-repro\[saelens\]'"):
        import_release("a", "b")


def test_cli_exports_a_cell_and_imports_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cell = Path("artifacts/train/topk-x8")
    cell.mkdir(parents=True)
    sae = example("topk")
    save(sae, cell)
    message = runner.invoke(app, ["export", "topk-x8", "--format", "sparsify", "--to", "out"])
    assert message.output == "out: sparsify, topk, D 12, K 24, hook blocks.3.hook_resid_post\n"
    message = runner.invoke(app, ["import", "out", "--to", "in"])
    assert message.output == "in: topk, D 12, K 24, hook blocks.3.hook_resid_post\n"
    assert_alike(sae, load("in"))
    message = runner.invoke(app, ["export", "in", "--format", "dictionary_learning", "--to", "b/c"])
    assert message.exit_code == 0
    assert_alike(sae, import_sae(Path("b/c")))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "none", "--format", "saelens", "--to", "x"], "neither a folder, nor a cell"),
        (["export", "full", "--format", "saelens", "--to", "full"], "not an empty folder"),
        (["import", "full", "--to", "full"], "not an empty folder"),
        (["import", "nothing", "--to", "x"], "no SAE there; looked for"),
        (["import", "release:id", "--to", "x"], "the hub at http://127.0.0.1:9 can't be reached"),
    ],
)
def test_cli_refuses_faults_and_writes_no_folder(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sae_lens")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    Path("full").mkdir()
    save(example("topk"), Path("full"))
    result = runner.invoke(app, arguments)
    assert isinstance(result.exception, StudyError)
    assert says in str(result.exception)
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_cli_lists_every_format_and_gives_examples() -> None:
    from sae_repro import cli

    annotated = cli.export.__annotations__["format"]
    assert get_args(get_args(annotated)[0]) == (*FORMATS, "neuronpedia")
    for command in ("export", "import"):
        message = runner.invoke(app, [command, "--help"]).output
        assert "Examples" in message and "sae-repro " + command in message
