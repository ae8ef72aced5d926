"""Models and SAEs that no stage would refuse before it has computed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from sae_repro.autoencoders.saved import save
from sae_repro.cli import app
from sae_repro.cli.own_models import check_own_models
from sae_repro.errors import StudyError
from sae_repro.params import parse

from ..autoencoders.test_damaged_folders import topk
from ..params.test_check import STUDY
from .families import tiny_config

LOCAL = {"kind": "local", "path": "model", "sha256": "0" * 64}


def logits(alibi: bool, attention: str) -> torch.Tensor:
    config = tiny_config("falcon", 50)
    config.alibi = alibi
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        return model(torch.arange(20)[None]).logits


def test_eager_attention_of_a_falcon_adds_alibi_twice() -> None:
    """The reason for the refusal, which can go once the two are equal with ALiBi, too."""
    torch.testing.assert_close(logits(False, "eager"), logits(False, "sdpa"), rtol=1e-4, atol=1e-5)
    apart = logits(True, "eager") - logits(True, "sdpa")
    assert float(apart.abs().max()) > 1e-3 * float(logits(True, "sdpa").abs().max())


@pytest.mark.parametrize(("alibi", "kind"), [(True, "falcon"), (False, "falcon"), (True, "bloom")])
def test_a_falcon_with_alibi_is_refused(alibi: bool, kind: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps({"model_type": kind, "alibi": alibi}))
    text = {"kind": "files", "files": {"a.txt": "0" * 64}}
    study = parse({**STUDY, "corpus": {"source": text}, "subject": {"source": LOCAL}})
    if alibi and kind == "falcon":
        with pytest.raises(StudyError, match="adds that bias twice"):
            check_own_models(study, tmp_path)
    else:
        check_own_models(study, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_metadata_that_no_file_can_hold_are_refused(value: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    folder.mkdir()
    save(topk(), folder)
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"]["loss"] = value
    (folder / "cfg.json").write_text(json.dumps(config))
    for verb in (["import"], ["export", "--format", "saelens"]):
        done = CliRunner().invoke(app, [*verb, str(folder), "--to", str(tmp_path / "out")])
        assert isinstance(done.exception, StudyError), done.exception
        assert "loss = " in str(done.exception)
        assert not (tmp_path / "out").exists()
