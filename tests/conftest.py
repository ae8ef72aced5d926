"""Fixtures of several packages: small activations on disk, and the real inputs."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from sae_repro.numerics.kernels import choose

choose("portable")  # before numpy and torch are imported: tests compute as stages do

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402

from sae_repro.contents import seal  # noqa: E402
from sae_repro.extract.sinks import OrderedSink, ShuffledSink  # noqa: E402
from sae_repro.files import sha256_file, write_json  # noqa: E402
from sae_repro.numerics.determinism import prepare  # noqa: E402

from .peers import Peer  # noqa: E402

HOOK = "blocks.0.hook_resid_post"
SHARED = Path(__file__).resolve().parents[1].parent / "shared"


# a change is judged by the same examples wherever it is tested; --hypothesis-profile=default draws
# others
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--renew-pictures`: browser tests write their screenshots to docs/."""
    parser.addoption("--renew-pictures", action="store_true", help="write screenshots to docs/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: processes that share the files end together with the short ones."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Kernels and the thread count decide bits: pin them for every test."""
    prepare(device="cpu", threads=1)


@pytest.fixture
def shared() -> Path:
    """The folder of real texts and models beside the checkout; tests that need it are skipped."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` with real inputs beside the checkout")
    return SHARED


def sparse_activations(n: int, d_in: int, seed: int) -> np.ndarray:
    """Sparse mixtures [n, d_in] of 3·d_in fixed atoms, plus a constant."""
    atoms = np.random.default_rng(0).standard_normal((3 * d_in, d_in))
    rng = np.random.default_rng(seed)
    z = (rng.random((n, len(atoms))) < 0.06) * rng.random((n, len(atoms)))
    return (z @ atoms + 0.5).astype(np.float32)


@pytest.fixture
def sparse_rows() -> Callable[[int, int, int], np.ndarray]:
    """`sparse_activations`, of which `make_store` makes its shards."""
    return sparse_activations


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """Writes artifacts/extract with sparse activations of one hook; returns the folder."""

    def make(
        *,
        train: np.ndarray | int = 4096,
        validation: np.ndarray | int = 1024,
        tuning: np.ndarray | int = 512,
        d_in: int = 8,
        shards: int = 3,
        name: str = "extract",
        shard_rows: int = 500,
    ) -> Path:
        folder = tmp_path / name
        data = {
            "train": train if isinstance(train, np.ndarray) else sparse_activations(train, d_in, 1),
            "calibration": sparse_activations(512, d_in, 2),
            "validation": validation
            if isinstance(validation, np.ndarray)
            else sparse_activations(validation, d_in, 3),
            "tuning": tuning
            if isinstance(tuning, np.ndarray)
            else sparse_activations(tuning, d_in, 4),
        }
        manifest: dict = {"hooks": {HOOK: {"d_in": d_in, "shards": {}}}, "index": {}}
        for split, x in data.items():
            sink = (
                ShuffledSink(
                    folder, [HOOK], d_in, "float32", shards=shards, rng=np.random.default_rng(5)
                )
                if split == "train"
                else OrderedSink(folder, split, [HOOK], d_in, "float32", shard_rows)
            )
            rows = np.arange(len(x))
            index = np.stack([rows // 20, rows % 20, rows % 7], axis=1).astype(np.int32)
            sink.append({HOOK: x}, index)
            entries = sink.close()
            manifest["hooks"][HOOK]["shards"][split] = entries[HOOK]
            manifest["index"][split] = entries["index"]
        squares = np.square(data["train"].astype(np.float64)).sum(1)
        mean = data["train"].astype(np.float64).mean(axis=0)
        np.save(folder / HOOK / "mean.npy", mean)
        manifest["hooks"][HOOK] |= {
            "rms": float(np.sqrt(squares.mean())),
            "median_norm": float(np.median(np.sqrt(squares))),
            "mean_sha256": sha256_file(folder / HOOK / "mean.npy"),
        }
        manifest |= {
            "tokens": {split: len(x) for split, x in data.items()},
            "pooling": "token",
            "context": 21,
            "prepend_bos": True,
            "names": {},
        }
        write_json(folder / "manifest.json", manifest)
        seal(folder)
        return folder

    return make


class Hub(BaseHTTPRequestHandler):
    """A hub that is up; what it says of a repository that it has not is `answer`, `code`."""

    answer, code = 404, "RepoNotFound"
    shas: ClassVar[dict[str, str]] = {}
    """Newest commit by path of the API."""
    files: ClassVar[dict[str, str]] = {}
    """Content by path."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path in self.shas:
            name = "/".join(path.split("/")[3:5])
            content = json.dumps({"id": name, "sha": self.shas[path]}).encode()
        elif path in self.files:
            content = self.files[path].encode()
        else:
            content = b""
        known = path == "/" or content
        self.send_response(200 if known else self.answer)
        if not known:
            self.send_header("X-Error-Code", self.code)
        if path in self.files:
            self.send_header("ETag", f'"{len(content)}"')
            self.send_header("X-Repo-Commit", path.split("/")[4])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    class Mine(Hub):
        pass

    server = HTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield Mine
    server.shutdown()
    server.server_close()


@pytest.fixture
def peer() -> Iterator[Callable[[str], Peer]]:
    """Starts peers that misbehave; see peers.MODES."""
    started: list[Peer] = []

    def start(mode: str) -> Peer:
        started.append(Peer(mode))
        return started[-1]

    yield start
    for running in started:
        running.close()
