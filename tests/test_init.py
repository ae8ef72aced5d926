"""A study made in a folder of its own."""

import subprocess
from pathlib import Path

from sae_repro.cli.outside import make


def test_what_init_says_to_do_next_commits_all_of_the_study(tmp_path: Path) -> None:
    study = tmp_path / "study"
    *_, last = make(study, "demo", tune=False)
    assert last.startswith(f"next: cd {study} && ") and last.endswith(" && dvc repro")
    commit = last.removeprefix("next: ").removesuffix(" && dvc repro")
    who = "export " + " ".join(
        f"GIT_{role}_{key}={value}"
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", "a"), ("EMAIL", "a@b.c"))
    )
    subprocess.run(["bash", "-c", f"{who}; {commit}"], check=True, capture_output=True)

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=study, check=True, capture_output=True, text=True
        ).stdout

    assert git("status", "--porcelain") == ""
    assert {"params.yaml", "dvc.yaml", ".dvc/config", "code/train.txt"} <= set(
        git("ls-tree", "-r", "--name-only", "HEAD").split()
    )
