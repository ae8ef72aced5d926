"""The files of a model: all there, whole, and its own."""

import json
from collections.abc import Iterator
from pathlib import Path

from sae_repro.checkpoint.wording import AGAIN, count, some
from sae_repro.errors import StudyError
from sae_repro.hub import one_line

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
LFS = b"version https://git-lfs"


def check_links(folder: Path) -> None:
    """StudyError for a link in `folder` to a file outside, which would be read, copied and shared.

    A snapshot in the hub's cache is made of links to its repository's own blobs: they stay there.
    """
    within = [folder.resolve()]
    if within[0].parent.name == "snapshots" and within[0].parents[1].name.startswith("models--"):
        within.append(within[0].parents[1] / "blobs")
    left = [
        path.name
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in within)
    ]
    if left:
        raise StudyError(
            f"{folder}: {some(left)}: a link out of the folder, which is not followed; put the "
            "file itself there (`cp -rL` copies a folder with what its links lead to)"
        )


def check_files(folder: Path, what: str) -> None:
    """StudyError, a line per fault, unless `folder` holds one model's whole safetensors weights.

    `what` names the folder in each line.
    """
    if not (folder / "config.json").is_file():
        raise StudyError(
            f"{what} is no model: config.json is missing; {AGAIN}, or name the folder that has it"
            if not (folder / "adapter_config.json").is_file()
            else _adapter(what)
        )
    if problems := list(_file_problems(folder)):
        raise StudyError("\n".join(f"{what}: {line}" for line in problems))


def _file_problems(folder: Path) -> Iterator[str]:
    if (folder / "adapter_config.json").is_file():
        yield _adapter("the folder")
        return
    pointers = [path.name for path in sorted(folder.iterdir()) if _is_pointer(path)]
    if pointers:
        yield (
            f"{some(pointers)}: a Git LFS pointer, not the file itself; run `git lfs pull` in "
            "the repository that it comes from"
        )
        return
    if (folder / WEIGHTS).is_file():
        shards = [WEIGHTS]
    elif (folder / INDEX).is_file():
        shards = []
        yield from _indexed(folder, shards)
    else:
        yield _no_weights(folder)
        return
    for name in shards:
        yield from _header_problems(folder / name)


def _adapter(what: str) -> str:
    return (
        f"{what} holds an adapter (adapter_config.json), not a whole model; merge it into its "
        "base model (`merge_and_unload()`) and save that with `save_pretrained`"
    )


def _indexed(folder: Path, shards: list[str]) -> Iterator[str]:
    """Add the shards of a sharded checkpoint to `shards`; faults of its index."""
    try:
        listed = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(listed.values()))
        if any(Path(name).name != name for name in names):
            raise ValueError("it names files outside the folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{INDEX}: damaged ({one_line(error)}); fetch it again"
        return
    if lost := [name for name in names if not (folder / name).is_file()]:
        yield f"{count(lost, 'shard')} that {INDEX} lists missing: {some(lost)}; fetch them again"
    present = {path.name for path in folder.glob("model-*.safetensors")}
    if extra := sorted(present - set(names)):
        yield (
            f"{some(extra)}: not listed in {INDEX}, so that its tensors would not be read; "
            f"{AGAIN}, or fetch the index again"
        )
    shards += [name for name in names if (folder / name).is_file()]


def _no_weights(folder: Path) -> str:
    names = [path.name for path in sorted(folder.iterdir())]
    others = [name for name in names if name.endswith(".safetensors")]
    gguf = [name for name in names if name.endswith(".gguf")]
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if others:
        return f"no {WEIGHTS}, only {some(others)}, a format of another program; {AGAIN}"
    if gguf:
        return (
            f"no *.safetensors, only {some(gguf)} (for llama.cpp); name the file itself: source: "
            "{kind: gguf, path: …}"
        )
    found = f"only {some(pickled)}" if pickled else "and no other weights"
    return f"no *.safetensors, {found}; {AGAIN} (pickled weights are not read)"


def _header_problems(path: Path) -> Iterator[str]:
    from safetensors import SafetensorError, safe_open

    if not path.stat().st_size:
        yield f"{path.name}: empty; fetch it again"
        return
    try:
        with safe_open(path, framework="numpy") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        yield f"{path.name}: truncated or damaged ({one_line(error)}); fetch it again"
        return
    # masks that old checkpoints carry along are integers or booleans, no weights
    weights = {name for name in kinds if name.endswith("weight")}
    if packed := sorted(name for name in weights if kinds[name] not in FLOATS):
        yield (
            f"{path.name}: quantised: {packed[0]} is {kinds[packed[0]]} "
            f"({count(packed, 'tensor')} of such a type); study the model that it was made from, "
            "or save a dequantised copy"
        )


def _is_pointer(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size > 1024:  # a pointer has about 130 bytes
        return False
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS
