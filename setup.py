"""The build step that packs the pipeline and the studies to start from into the wheel.

They lie at the root of a checkout, where `dvc repro` reads them. `sae-repro init` takes them from
the wheel's sae_repro/cli/template; everything else of the build is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKED = (
    ".dvc/plots/*",
    ".dvcignore",
    ".gitignore",
    "claims.yaml",
    "dvc.yaml",
    "params.yaml",
    "tune/dvc.yaml",
    "tune/params.yaml",
    "stages/*.py",
    "studies/templates/*.yaml",
)


class BuildWithTemplate(build_py):
    """`build_py`, and the files of `PACKED`; an editable install reads those of the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        template = Path(self.build_lib) / "sae_repro" / "cli" / "template"
        for pattern in PACKED:
            found = sorted(ROOT.glob(pattern))
            if not found:
                raise FileNotFoundError(f"{pattern}: not in {ROOT}, and the wheel needs it")
            for path in found:
                target = template / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildWithTemplate})
