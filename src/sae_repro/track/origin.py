"""The origin of a run: commit, machine, versions, and DVC's hashes of its inputs and outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.contents import CONTENTS
from sae_repro.files import canonical_json
from sae_repro.params import check_section, read_yaml
from sae_repro.params.study import Loose
from sae_repro.provenance import git_state, host, lock_hashes, read_lock, repository_url, versions

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

DATASETS = {
    f"artifacts/{stage}/{CONTENTS}": context
    for stage, context in {"extract": "training", "corpus": "evaluation"}.items()
}
NOTE = "mlflow.note.content"


@dataclass(frozen=True)
class Origin:
    """Commit, machine and dvc.lock of a study at the time of sending; no part of runs.jsonl."""

    folder: Path

    @cached_property
    def study(self) -> str:
        """The study's name; `root` for the one at the repository's root.

        StudyError where params.yaml has no such place as its root.
        """
        path = self.folder / "params.yaml"
        raw = read_yaml(path) if path.is_file() else {}
        stated = {key: raw[key] for key in ("root",) if key in raw}
        root: str = check_section(Loose, stated, source=str(path)).model_dump()["root"]
        at_root = (self.folder / root).resolve() == self.folder.resolve()
        return "root" if at_root else self.folder.resolve().name

    @cached_property
    def _lock(self) -> dict[str, Any]:
        return read_lock(self.folder)

    @cached_property
    def _repository(self) -> str:
        return repository_url(self.folder)

    @cached_property
    def tags(self) -> dict[str, str]:
        """Commit, machine and versions, under MLflow's own names where it has one."""
        git = git_state(self.folder)
        facts = {**git, **host(), **{f"version.{k}": v for k, v in versions().items()}}
        tags = {f"sae_repro.{name}": value for name, value in facts.items()}
        if git:
            tags["mlflow.source.git.commit"] = git["git_commit"]
            tags["mlflow.source.git.dirty"] = git["git_dirty"]
        if self._repository:
            tags["mlflow.source.git.repoURL"] = self._repository
        return tags

    def dvc_tags(self, run: Mapping[str, Any]) -> dict[str, str]:
        """dvc.lock's hashes of the inputs and outputs of the stages behind `run`."""
        hashes = self._hashes(run)
        return {
            f"sae_repro.dvc.{kind}.{path.replace('/', '.')}": md5
            for kind, name in (("in", "deps"), ("out", "outs"))
            for path, md5 in hashes[name].items()
        }

    def _hashes(self, run: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        stages = {"cell": ("train", "evaluate"), "report": ("compare",)}.get(run["kind"], ())
        locked = [lock_hashes(self._lock, stage) for stage in stages]
        return {
            # a study below the root has its code at ../../src
            kind: {path.lstrip("./"): md5 for one in locked for path, md5 in one[kind].items()}
            for kind in ("deps", "outs")
        }

    def datasets(self, run: Mapping[str, Any]) -> "list[DatasetInput]":
        """The data a cell was trained and evaluated on, by DVC's hash."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        hashes = self._hashes(run)["deps"] if run["kind"] == "cell" else {}
        return [
            DatasetInput(
                Dataset(
                    name=f"{self.study}/{path.removesuffix(f'/{CONTENTS}')}",
                    digest=hashes[path],
                    source_type="dvc",
                    source=canonical_json({"path": path, "md5": hashes[path]}),
                ),
                [InputTag("mlflow.data.context", context)],
            )
            for path, context in DATASETS.items()
            if hashes.get(path)
        ]

    def note(self, run: Mapping[str, Any], commit: str) -> str:
        """The run's description in Markdown: how to get its code, weights and numbers again."""
        lines = [f"{run['kind']} `{run['name']}` of study `{self.study}`, key `{run['key']}`", ""]
        if commit:
            short = f"`{commit[:12]}`"
            page = f"[{short}]({self._repository}/commit/{commit})"
            lines.append(f"- code: commit {page if self._repository else short}")
        for path, md5 in self._hashes(run)["outs"].items():
            lines.append(
                f"- `{path}`: DVC md5 `{md5}`; `git log -S {md5} -- dvc.lock` names the commits "
                f"that recorded it, `dvc pull {path}` brings it"
            )
        return "\n".join(lines)
