"""A model card: README.md with front matter for a Hugging Face repository that holds one SAE."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sae_repro.autoencoders import SAE, crosscoder_of
from sae_repro.compare.tables import number, with_interval
from sae_repro.dashboards.sources import Source
from sae_repro.errors import one_line
from sae_repro.metrics import names_in
from sae_repro.metrics.labels import KEY, heading
from sae_repro.params import read_yaml
from sae_repro.provenance import git_state, versions
from sae_repro.readers.shards import GIVEN_ROWS

LOADING: Mapping[str, str] = {
    "saelens": """\
from sae_lens import SAE

sae = SAE.load_from_disk("this-folder", device="cpu")""",
    "dictionary_learning": """\
from dictionary_learning.utils import load_dictionary

dictionary, config = load_dictionary("this-folder", device="cpu")""",
    "sparsify": """\
from sparsify import SparseCoder

sae = SparseCoder.load_from_disk("this-folder", device="cpu")""",
}
"""How each format's own library loads the folder."""
HERE = """\
from pathlib import Path

from sae_repro.autoencoders.interchange import import_sae

sae = import_sae(Path("this-folder"))
z_nk = sae.encode(x_nd)  # raw activations [N, D] at the hook
x_hat_nd = sae.decode(z_nk)"""
TRANSCODER_HERE = """\
from sae_repro.autoencoders import load

transcoder = load("this-folder")
z_nk = transcoder.encode(x_nd)  # raw activations [N, D] at the hook
y_hat_nd = transcoder.with_skip(transcoder.decode(z_nk), x_nd)  # at the target hook"""
CROSSCODER_HERE = """\
from sae_repro.autoencoders import crosscoder_of, load

cross = crosscoder_of(load("this-folder"))
z_nk = cross.encode(x)  # {hook: raw activations [N, D_h]} of every hook in cross.hooks
x_hat = cross.decode(z_nk)  # {hook: [N, D_h]}"""
SIDE_BY_SIDE = """\
It has no crosscoders, and loads this one as an SAE on the activations of all hooks side by side, in
the order in which this card names them."""


def model_card(source: Source, format: str) -> str:
    """The text: what the SAE was trained on, what it measures, how to load it.

    The licence is left to who publishes: nothing here knows whose rights are in it.
    """
    return "\n".join([
        *_front_matter(source, format),
        "",
        f"# {_title(source)}",
        "",
        *_origin(source),
        "",
        "## Measured on held-out documents",
        "",
        *_metrics(source),
        "",
        "## Load",
        "",
        f"With the library of the format {format}:",
        "",
        f"```python\n{LOADING[format]}\n```",
        "",
        *([SIDE_BY_SIDE, ""] if crosscoder_of(source.sae) else []),
        "With sae-repro:",
        "",
        f"```python\n{_loaded_here(source.sae)}\n```",
        "",
    ])  # fmt: skip


def _title(source: Source) -> str:
    if _is_given(source):
        return f"{_kind(source.sae)} of {_plain(source.corpus.name)}"
    return f"{_kind(source.sae)} of {_name(source)}, {source.hook}"


def _kind(sae: SAE) -> str:
    if crosscoder_of(sae):
        return f"{sae.architecture} crosscoder"
    return sae.stored_architecture if sae.transcodes else f"{sae.architecture} SAE"


def _loaded_here(sae: SAE) -> str:
    if crosscoder_of(sae):
        return CROSSCODER_HERE
    return TRANSCODER_HERE if sae.transcodes else HERE


def _is_given(source: Source) -> bool:
    """Whether its activations came from files, and no language model is known."""
    return bool(source.store.manifest["pooling"] == GIVEN_ROWS)


def _front_matter(source: Source, format: str) -> Iterator[str]:
    params = read_yaml(source.study / "params.yaml")
    subject, text = params["subject"]["source"], params["corpus"]["source"]
    yield "---"
    yield "# license: fill in the licence of these weights; the model's and the text's may bind you"
    yield f"library_name: {format}"
    yield "tags: [sparse-autoencoder, mechanistic-interpretability]"
    if subject["kind"] == "hub":
        yield f"base_model: {_quoted(subject['name'])}"
    if text["kind"] == "hub":
        yield f"datasets: [{_quoted(text['name'])}]"
    yield "---"


def _quoted(text: object) -> str:
    """`text` as a scalar of YAML, whatever is in it."""
    return json.dumps(str(text))


def _origin(source: Source) -> Iterator[str]:
    params = read_yaml(source.study / "params.yaml")
    training = source.training
    choices = {k: v for k, v in training["choices"].items() if v is not None}
    git = git_state(source.study)
    installed = versions()
    rows = {
        **_data(source, params),
        "D, K": f"{source.sae.d_in}, {source.sae.d_sae}",
        f"training {_unit(source)}": number(training["tokens"]),
        "seed": str(training["seed"]),
        "cell": f"{source.name}, key {training['key']}",
        "choices": ", ".join(f"{key} {value}" for key, value in choices.items()),
        "commit": git.get("git_commit", "unknown")
        + (" with changes" if git.get("git_dirty") == "true" else ""),
        "versions, as it was exported": ", ".join(f"{k} {v}" for k, v in installed.items()),
    }
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {_plain(value)} |" for name, value in rows.items())
    yield ""
    yield (
        "It acts on raw activations: what training normalised is folded into its weights, and rows "
        "of its decoder have length 1."
    )


def _data(source: Source, params: Mapping[str, Any]) -> dict[str, str]:
    """What the SAE was trained on; of given activations there is neither model nor text."""
    manifest, text = source.store.manifest, params["corpus"]["source"]
    if _is_given(source):
        return {"activations": f"{source.corpus.name}, {_described(text)}"}
    return {
        "language model": f"{_name(source)}, {_described(params['subject']['source'])}",
        "text": f"{source.corpus.name}, {_described(text)}",
        "hook": source.hook,
        "rows": f"{manifest['context']} tokens, "
        + ("no BOS" if manifest["prepend_bos"] is False else "behind a first token (BOS)"),
    }


def _unit(source: Source) -> str:
    """What a row of activations is called."""
    return "rows" if _is_given(source) else "tokens"


def _name(source: Source) -> str:
    return _plain(str(source.subject["name"]))


def _described(given: Mapping[str, Any]) -> str:
    """Where a model or text came from, with what pins it."""
    kind = {"hub": "from the hub", "train": "trained for this study", "local": "a local folder",
            "gguf": "a GGUF file", "stories": "generated by sae-repro",
            "files": "files", "activations": "files"}[given["kind"]]  # fmt: skip
    pins = [f"{key} {given[key]}" for key in ("revision", "sha256") if key in given]
    if "files" in given:
        pins = [f"{name} (sha256 {sha})" for name, sha in given["files"].items()]
    return ", ".join([kind, *pins])


def _metrics(source: Source) -> Iterator[str]:
    measured = source.measured
    metrics, intervals, counts = (measured[key] for key in ("metrics", "intervals", "counts"))
    names = dict.fromkeys([*names_in("metrics.json"), *names_in("cells.md", metrics)])
    shown = [name for name in names if metrics.get(name) is not None]
    yield (
        f"{number(counts['tokens'])} {_unit(source)} of {number(counts['documents'])} documents "
        "that no training saw. Brackets: 95 % interval, over documents or latents, not over seeds. "
        f"{KEY}."
    )
    yield ""
    yield "| metric | value |"
    yield "|---|---|"
    for name in shown:
        bounds = intervals.get(name)
        interval = (float(bounds[0]), float(bounds[1])) if bounds else None
        yield f"| {heading(name, of=_unit(source))} | {with_interval(metrics[name], interval)} |"


def _plain(text: str) -> str:
    """`text` in a cell of a table: on one line, and nothing that Markdown or HTML obeys."""
    escaped = "".join(f"\\{c}" if c in r"\`*|[]~" else c for c in one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")
