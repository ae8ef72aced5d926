"""An extraction that was killed goes on from its last state, with the same bits.

The unfinished folder and its state lie under the study's `.sae-repro/extraction`, where DVC
removes nothing, by the hash of all that activations follow from: other settings, another corpus,
subject or code are another extraction. A state is replaced whole; rows written after it are cut
off.
"""

import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sae_repro.extract.state import State, read_state, write_state
from sae_repro.files import digest, replacing_folder, settle

Restored = TypeVar("Restored")

BOOT = Path("/proc/sys/kernel/random/boot_id")


class States:
    """The last state of the extraction into `folder`, in a file beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder.with_name(f"{folder.name}.state")

    def save(self, state: State, without: Collection[str] = ()) -> None:
        """Replace the state by that of the extraction; all rows of then are in their files.

        It can be used also when the files `without` are gone.
        """
        sizes = {
            path.relative_to(self.folder).as_posix(): path.stat().st_size
            for path in self.folder.rglob("*")
            if path.is_file() and path.relative_to(self.folder).as_posix() not in without
        }
        of = {"boot": _boot(), "name": self.folder.name, "sizes": sizes, "extraction": state}
        write_state(self._path, of)

    def load(self, restore: Callable[[State], Restored]) -> Restored | None:
        """What `restore` makes of the state; None, and an empty folder, where there is none.

        A state is not used, and that is said, where it or a file of then is damaged or foreign.
        """
        found: Restored | None = None
        if self._path.exists() and self.folder.is_dir():
            try:
                found = restore(self._checked())
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = f"{type(error).__name__}: {error}"
                print(f"extract: {self._path}: not usable; starting afresh ({reason})",
                      file=sys.stderr)  # fmt: skip
        if found is None:
            self.drop()
            self.folder.mkdir(parents=True)
        return found

    def _checked(self) -> State:
        """The extraction's state; ValueError where it or its files are not as they were."""
        of = read_state(self._path)
        if of["name"] != self.folder.name:
            raise ValueError("the state of another extraction")
        if of["boot"] != _boot():
            raise ValueError("the system was restarted, and may have lost rows")
        for name, size in of["sizes"].items():
            path = self.folder / name
            if not path.exists():  # put in order since
                path = path.with_suffix(".npy")
            if path.stat().st_size < size:
                raise ValueError(f"{path}: shorter than it was")
        state: State = of["extraction"]
        return state

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
    settle(kept.folder)  # what takes long, while a killed process still finds it
    with replacing_folder(path) as folder:
        folder.rmdir()
        shutil.move(kept.folder, folder)
    kept.drop()


def _boot() -> str:
    """What tells one run of the operating system from the next; nothing where it has no name."""
    return BOOT.read_text() if BOOT.is_file() else ""
