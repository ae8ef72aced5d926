"""Whether a model can be studied: each kind of damage refused by a line that names it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.utils import logging
from typer.testing import CliRunner

from sae_repro.checkpoint.configuration import shape_of
from sae_repro.cli import app
from sae_repro.corpus.tokenizers import byte_pairs
from sae_repro.errors import StudyError
from sae_repro.files import sha256_folder
from sae_repro.params import LocalSubject
from sae_repro.pins import check_model, model_digest
from sae_repro.readers import examination
from sae_repro.readers.agreement import load_compared
from sae_repro.readers.examination import examine
from sae_repro.readers.subject import load_plain, load_subject

from .families import tiny_config

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = byte_pairs(["the cat sat on a mat while a dog ran far away"] * 9, 290)
SIZES = {"vocab_size": len(TOKENIZER), "hidden_size": 16, "num_hidden_layers": 2,
         "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 48,
         "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 2}  # fmt: skip
LLAMA = LlamaConfig(**SIZES)
Tensors = dict[str, torch.Tensor]


def save(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    logging.disable_progress_bar()
    model.save_pretrained(folder, **options)
    TOKENIZER.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return save(LlamaForCausalLM(LLAMA), tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    """A sound model, to be damaged."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


def change(folder: Path, by: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    save_file(by(load_file(path)), path, metadata={"format": "pt"})


def configure(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def shards(folder: Path) -> list[Path]:
    """Save the model again in several files."""
    model = LlamaForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    return sorted(folder.glob("model-*.safetensors"))


def test_checkpoints_in_half_precision_are_run_in_fp32_as_they_are(model: Path) -> None:
    change(model, lambda tensors: {name: t.bfloat16() for name, t in tensors.items()})
    configure(model, dtype="bfloat16")
    stored = load_file(model / "model.safetensors")
    loaded = load_plain(model, "it").state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in stored.items())
    assert examine(model, "it")


def test_a_sound_model_has_all_hooks(model: Path) -> None:
    asked = ["blocks.1.hook_mlp_out"]
    found = examine(model, "it", hooks=asked)
    assert {"blocks.0.hook_resid_pre", "blocks.1.hook_resid_post"} <= set(found.hooks)
    assert found.widths == {asked[0]: 16}
    shards(model)
    assert examine(model, "it", hooks=asked) == found


# tensors


def names() -> list[str]:
    with torch.device("meta"):
        return sorted(LlamaForCausalLM(LLAMA).state_dict())


@settings(max_examples=12, deadline=None)
@given(st.sets(st.sampled_from(names()), min_size=1, max_size=6))
def test_missing_tensors_are_named(llama: Path, tmp_path_factory: Any, missing: set[str]) -> None:
    folder = Path(shutil.copytree(llama, tmp_path_factory.mktemp("missing") / "model"))
    change(folder, lambda tensors: {k: v for k, v in tensors.items() if k not in missing})
    with pytest.raises(StudyError) as refusal:
        examine(folder, "it")
    line = str(refusal.value)
    assert line.startswith(f"it: {len(missing)} tensor")
    assert ", ".join(sorted(missing)[:3]) in line
    with pytest.raises(StudyError, match="random weights"):
        load_subject(folder)


PREFIXES = st.from_regex(r"([a-z_]{1,9}\.){1,2}", fullmatch=True).filter(
    # transformers itself takes one `model.` for the other
    lambda prefix: not prefix.startswith("model.")
)


@settings(max_examples=12, deadline=None)
@given(
    PREFIXES | st.sampled_from(["module.", "_orig_mod.", "base_model.model.", "_orig_mod.module."])
)
def test_a_prefix_is_named(llama: Path, tmp_path_factory: Any, prefix: str) -> None:
    folder = Path(shutil.copytree(llama, tmp_path_factory.mktemp("prefix") / "model"))
    change(folder, lambda tensors: {prefix + k: v for k, v in tensors.items()})
    with pytest.raises(StudyError, match="inside a wrapper") as refusal:
        examine(folder, "it")
    assert f"`{prefix}`" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("part", ["_orig_mod.", "module."])
def test_a_wrapped_part_is_named(model: Path, part: str) -> None:
    change(model, lambda tensors: {k.replace("model.", f"model.{part}"): v
                                   for k, v in tensors.items()})  # fmt: skip
    with pytest.raises(StudyError, match=rf"20 tensors have `{part}` in their names"):
        examine(model, "it")


def test_left_over_and_misshapen_tensors_are_named(model: Path) -> None:
    change(model, lambda tensors: tensors | {"score.weight": torch.ones(2, 16),
                                             "model.norm.weight": torch.ones(8)})  # fmt: skip
    with pytest.raises(StudyError) as refusal:
        examine(model, "it")
    left, shape = str(refusal.value).splitlines()
    assert "1 tensor that the model has no place for: score.weight" in left
    assert "model.norm.weight is [8], not [16]" in shape


def test_what_transformers_itself_allows_is_no_fault(tmp_path: Path) -> None:
    """Tied weights, masks stored by old GPT-2s, names without `transformer.`."""
    config = GPT2Config(vocab_size=len(TOKENIZER), n_positions=32, n_embd=16, n_layer=2, n_head=2,
                        bos_token_id=1, eos_token_id=1)  # fmt: skip
    folder = save(GPT2LMHeadModel(config), tmp_path / "gpt2")
    expected = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in expected, "tied"
    mask = torch.ones(1, 1, 32, 32, dtype=torch.uint8)
    masks = {f"h.{i}.attn.bias": mask.clone() for i in range(2)}
    change(folder, lambda tensors: masks | {k.removeprefix("transformer."): v
                                            for k, v in tensors.items()})  # fmt: skip
    examine(folder, "it")
    found = load_subject(folder).original_model.state_dict()
    assert any(torch.equal(value, expected["transformer.wpe.weight"]) for value in found.values())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(model: Path, value: float) -> None:
    change(model, lambda tensors: {k: v.index_fill(0, torch.tensor([3]), value)
                                   if k == "model.layers.1.mlp.up_proj.weight" else v
                                   for k, v in tensors.items()})  # fmt: skip
    with pytest.raises(StudyError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN or"):
        examine(model, "it")


# files


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def pointer(name: str) -> Callable[[Path], None]:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123456\n"
    return lambda folder: (folder / name).write_text(text) and None


def renamed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors").rename(folder / name) and None


def lost_shard(folder: Path) -> None:
    shards(folder)[1].unlink()


def unlisted_shard(folder: Path) -> None:
    first = shards(folder)[0]
    shutil.copy(first, folder / "model-00009-of-00009.safetensors")


def outside_index(folder: Path) -> None:
    shards(folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["lm_head.weight"] = "../secret.safetensors"
    path.write_text(json.dumps(index))


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def packed(dtype: torch.dtype) -> Callable[[Path], None]:
    return lambda folder: change(folder, lambda tensors: tensors | {
        "model.layers.0.mlp.up_proj.weight":
            tensors["model.layers.0.mlp.up_proj.weight"].to(dtype)})  # fmt: skip


def configured(**keys: Any) -> Callable[[Path], None]:
    return lambda folder: configure(folder, **keys)


DAMAGE = {
    "truncated": (truncated, r"model\.safetensors: truncated or damaged"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b"") and None, "empty"),
    "pointer": (pointer("model.safetensors"), r"model\.safetensors: a Git LFS .* `git lfs pull`"),
    "tokenizer pointer": (pointer("tokenizer.json"), r"tokenizer\.json: a Git LFS pointer"),
    "config pointer": (pointer("config.json"), r"config\.json: a Git LFS pointer"),
    "pickled": (renamed("pytorch_model.bin"), r"no \*\.safetensors, only pytorch_model\.bin"),
    "gguf": (renamed("model-q4.gguf"), r"only model-q4\.gguf .*kind: gguf"),
    "consolidated": (renamed("consolidated.safetensors"), r"only consolidated\.safetensors"),
    "none": (lambda f: (f / "model.safetensors").unlink(), "no other weights"),
    "lost shard": (lost_shard, r"1 shard that .* lists missing: model-00002-of-"),
    "unlisted shard": (unlisted_shard, r"model-00009-of-00009\.safetensors: not listed"),
    "index outside": (outside_index, r"index\.json: damaged \(it names files outside"),
    "adapter": (adapter, r"adapter \(adapter_config\.json\).*merge_and_unload"),
    "adapter alone": (lambda f: (adapter(f), (f / "config.json").unlink())[1], "merge_and_unload"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "broken config": (lambda f: (f / "config.json").write_text("{") and None, "can't be read"),
    "list config": (lambda f: (f / "config.json").write_text("[]") and None, "no JSON object"),
    "int8": (packed(torch.int8), "quantised: .*up_proj.weight is I8"),
    "fp8": (packed(torch.float8_e4m3fn), "quantised: .*up_proj.weight is F8_E4M3"),
    "gptq": (configured(quantization_config={"quant_method": "gptq"}), "weights are quantised"),
    "code": (configured(auto_map={"AutoModelForCausalLM": "own.Own"}), r"auto_map"),
    "unknown type": (configured(model_type="mine"), "'mine', which transformers does not know"),
    "no type": (lambda f: (f / "config.json").write_text("{}") and None, "model_type None"),
    "no tokenizer": (
        lambda f: [p.unlink() for p in f.glob("tokenizer*")] and None, "tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_folders_are_refused_in_one_line(model: Path, kind: str) -> None:
    damage, expected = DAMAGE[kind]
    damage(model)
    with pytest.raises(StudyError, match=expected) as refusal:
        examine(model, "it")
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith("it")


def test_a_models_own_code_is_not_run(model: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (model / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    configure(model, auto_map={"AutoConfig": "own.Own"}, model_type="own")
    with pytest.raises(StudyError, match="auto_map"):
        examine(model, "it")
    assert not ran.exists()


# models


T5 = T5Config(vocab_size=len(TOKENIZER), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (BertForMaskedLM, BertConfig(**SIZES)),
        (RobertaForMaskedLM, RobertaConfig(**SIZES)),
        (T5ForConditionalGeneration, T5),
        (ViTForImageClassification, ViTConfig(hidden_size=16, num_attention_heads=2)),
    ],
)
def test_models_that_read_later_tokens_are_refused(
    make: Callable[[Any], PreTrainedModel], config: Any, tmp_path: Path
) -> None:
    folder = save(make(config), tmp_path / "model")
    with pytest.raises(StudyError, match=rf"{make.__name__} .*no causal language model"):
        examine(folder, "it")


def test_later_tokens_that_config_json_hides_are_found(tmp_path: Path) -> None:
    """BERT under the name of a causal model: only running it tells."""
    folder = save(BertForMaskedLM(BertConfig(**SIZES)), tmp_path / "model")
    configure(folder, architectures=["BertLMHeadModel"])
    with pytest.raises(StudyError, match=r"tokens that come later change \w+ by"):
        load_compared(folder, "it")


def test_a_tokenizer_larger_than_the_embedding_is_refused(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"bos_token": "<|s|>"})
    tokenizer.save_pretrained(model)
    with pytest.raises(StudyError, match=rf"beyond the model's {len(TOKENIZER)} .*'<\|s\|>' = "):
        examine(model, "it")


@pytest.mark.parametrize(
    ("family", "positions"),
    [("gpt_neo", 64), ("mpt", 64), ("gpt2", 64), ("bloom", None), ("mamba", None), ("phi3", 64)],
)
def test_sizes_by_whatever_name(family: str, positions: int | None) -> None:
    shape = shape_of(tiny_config(family, 99), "it")
    assert (shape.d_model, shape.n_layers, shape.positions) == (32, 4, positions)


def test_a_hook_at_which_nothing_varies_is_refused(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    name = next(n for n in tensors if n.endswith("layers.0.mlp.down_proj.weight"))
    save_file(tensors | {name: torch.zeros_like(tensors[name])}, model / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    examine(model, "m", hooks=["blocks.1.hook_mlp_out"])
    with pytest.raises(StudyError, match=r"m: blocks\.0\.hook_mlp_out is the same vector"):
        examine(model, "m", hooks=["blocks.0.hook_mlp_out"])


def test_random_generators_are_left_alone(model: Path) -> None:
    torch.manual_seed(3)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].tolist()
    examine(model, "it")
    assert torch.equal(before, torch.get_rng_state())
    assert numbers == np.random.get_state()[1].tolist()


# the bridge


@pytest.mark.parametrize(
    ("factor", "sound"), [(1 + 1e-6, True), (1 + 1e-3, False), (float("nan"), False)]
)
def test_a_wrapper_that_gives_other_numbers_is_refused(
    model: Path, factor: float, sound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_repro.readers import agreement

    bridged = agreement.bridged

    def scaled(plain: PreTrainedModel, folder: Path) -> Any:
        bridge = bridged(plain, folder)
        bridge.original_model.get_parameter("model.norm.weight").data.mul_(factor)
        return bridge

    monkeypatch.setattr(agreement, "bridged", scaled)
    if sound:
        assert load_compared(model, "it")[1].value <= 1e-5
        return
    with pytest.raises(StudyError, match=r"other numbers than transformers: logits by"):
        load_compared(model, "it")


# links


def test_links_that_leave_the_folder_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (model / "notes.json").symlink_to(tmp_path / "secret.json")
    for read in (model_digest, lambda path: check_model(pinned(path), Path("/"))):
        with pytest.raises(StudyError, match=r"notes\.json: a link out of the folder.*cp -rL"):
            read(model)


def pinned(folder: Path) -> LocalSubject:
    return LocalSubject(kind="local", path=str(folder), sha256="0" * 64)


def test_links_within_a_folder_and_to_it_are_followed(model: Path, tmp_path: Path) -> None:
    before = model_digest(model)
    (model / "model.safetensors").rename(model / "weights.safetensors")
    (model / "model.safetensors").symlink_to("weights.safetensors")
    (tmp_path / "link").symlink_to(model)
    assert model_digest(tmp_path / "link") == model_digest(model) != before
    examine(tmp_path / "link", "it")


def test_a_snapshot_of_the_hubs_cache_is_a_model(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub/models--someone--model"
    snapshot = repository / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(model.iterdir())):
        shutil.copy(path, repository / f"blobs/{number}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert model_digest(snapshot) == sha256_folder(model)
    (snapshot / "notes.json").symlink_to(tmp_path / "model/config.json")
    with pytest.raises(StudyError, match="a link out of the folder"):
        model_digest(snapshot)


# what `check` keeps


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `new` needs of a checkout, and a text."""
    (tmp_path / "stages").mkdir()
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text(
        "\n\n".join(f"the cat {i} sat on a mat " * 9 for i in range(500))
    )
    return tmp_path


def invoke(*arguments: str) -> str:
    """What a command says, an error or not."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, StudyError), result.exception
    return str(result.exception or result.output)


def test_a_model_found_sound_is_examined_once(
    checkout: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "next:" in invoke("new", "x", "--text", "mine.txt", "--model", "model")
    (kept,) = (checkout / "studies/x/.sae-repro/examined").iterdir()
    calls = []
    monkeypatch.setattr(examination, "examine", lambda *_, hooks: calls.append(1)
                        or examination.Examined(list(hooks), {}))  # fmt: skip
    assert invoke("check", "studies/x").startswith("ok: ")
    assert not calls
    for damaged in ("{", kept.read_text().replace("blocks.0", "blocks.1", 1)):
        calls.clear()
        kept.write_text(damaged)
        assert invoke("check", "studies/x").startswith("ok: ")
        assert calls == [1], "a damaged note counts for nothing"
    change(model, lambda tensors: tensors | {"model.norm.weight": torch.ones(16) * 2})
    params = checkout / "studies/x/params.yaml"
    text = params.read_text()
    params.write_text(re.sub(r"(path: \S+\s+sha256: )\w+", rf"\g<1>{model_digest(model)}", text))
    assert params.read_text() != text
    assert invoke("check", "studies/x").startswith("ok: ")
    assert calls == [1, 1], "another model is examined"


def test_check_refuses_what_extract_would(checkout: Path, model: Path) -> None:
    folder = save(AutoModelForCausalLM.from_config(tiny_config("gpt_neox", len(TOKENIZER))),
                  checkout / "neox")  # fmt: skip
    message = invoke("new", "x", "--text", "mine.txt", "--model", str(folder), "--hook",
                     "blocks.0.hook_resid_mid")  # fmt: skip
    assert "blocks.0.hook_resid_mid: the model has no such hook" in message
    assert not (checkout / "studies/x").exists()
    invoke("new", "x", "--text", "mine.txt", "--model", "model")
    params = checkout / "studies/x/params.yaml"
    params.write_text(re.sub(r"context: \d+", "context: 49", params.read_text()))
    assert "extract.context = 49: the model has 48 positions" in invoke("check", "studies/x")
    (model / "model.safetensors").unlink()
    assert "no *.safetensors" in invoke("check", "studies/x")


def test_a_stated_size_is_the_models(checkout: Path, model: Path) -> None:
    message = invoke("new", "x", "--text", "mine.txt", "--model", "model", "--d-model", "32")
    assert "--d-model 32: the model model has 16" in message
