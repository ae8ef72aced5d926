"""An extraction that was killed goes on from its last state, with the same bits.

The unfinished folder and its state lie under the study's `.sae-repro/extraction`, where DVC
removes nothing, by the hash of all that activations follow from: other settings, another corpus,
subject or code are another extraction. A state is replaced whole; rows written after it are cut
off.
"""

import pickle
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.files import digest, replacing, replacing_folder

if TYPE_CHECKING:
    from sae_repro.extract.extraction import Extraction

BOOT = Path("/proc/sys/kernel/random/boot_id")


class States:
    """The last state of the extraction into `folder`, in a file beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder.with_name(f"{folder.name}.state")

    def save(self, extraction: "Extraction") -> None:
        """Replace the state."""
        with replacing(self._path) as path:
            path.write_bytes(pickle.dumps((_boot(), extraction)))

    def load(self) -> "Extraction | None":
        """The extraction as it was saved; None, and an empty folder, where there is none."""
        extraction: Extraction | None = None
        if self._path.is_file() and self.folder.is_dir():
            try:
                # our own file, which this stage alone writes
                boot, extraction = pickle.loads(self._path.read_bytes())
                # the system may have lost rows that it had not yet written when it went down
                extraction = extraction if boot == _boot() else None
            except Exception:  # a damaged pickle raises errors of many kinds; so do missing rows
                extraction = None
            if extraction is None:
                print(f"extract: {self._path}: not usable; starting afresh", file=sys.stderr)
        if extraction is None:
            self.drop()
            self.folder.mkdir(parents=True)
        return extraction

    def drop(self) -> None:
        """Delete the state and the folder."""
        self._path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def resumable_folder(path: Path, states: Path, identity: object) -> Iterator[States]:
    """The folder of `States`, kept by `identity` in `states`, replaces `path` at the block's end.

    Those of other identities are deleted.
    """
    name = digest(identity)
    states.mkdir(parents=True, exist_ok=True)
    for other in states.iterdir():
        if other.name.partition(".")[0] != name:
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    kept = States(states / name)
    yield kept
    with replacing_folder(path) as folder:
        folder.rmdir()
        shutil.move(kept.folder, folder)
    kept.drop()


def _boot() -> str:
    """What tells one run of the operating system from the next; nothing where it has no name."""
    return BOOT.read_text() if BOOT.is_file() else ""
