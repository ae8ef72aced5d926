"""One round of training rows extracted again: `python -m sae_repro.extract.again ROUND PARENT`.

Run in a study's folder by the stage `train`, where `extract.keep` is `buffer`: ROUND counts from 0,
as in the manifest, in messages from 1; PARENT is the process without which it ends. The rows go to
.sae-repro/rolling in place of those of another round, and must be those that artifacts/extract has
the checksums of. A process of its own: what trains does not hold the language model.
"""

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from sae_repro.contents import check
from sae_repro.errors import StudyError
from sae_repro.extract.extraction import Inputs, norm_limit_of
from sae_repro.extract.loading import layers_in, load_inputs
from sae_repro.extract.norm_limit import NormWatch
from sae_repro.extract.passes import passes
from sae_repro.extract.rolling import new_rounds, numbered
from sae_repro.files import disk_fault, read_object, replacing_folder
from sae_repro.numerics.determinism import prepare
from sae_repro.numerics.kernels import choose
from sae_repro.params import Extract, load
from sae_repro.sidebyside import end_with
from sae_repro.stage import ROLLING


def again(number: int, inputs: Inputs, settings: Extract, manifest: dict[str, Any], *,
          seed: int, folder: Path) -> None:  # fmt: skip
    """Write the rows of round `number` of the manifest to `folder`.

    Its rounds are as long as the manifest's `buffer` says, whatever `settings` say by now.
    StudyError where the rows are not those of then.
    """
    settings = settings.model_copy(update={"buffer": manifest["buffer"]})
    d_in = {hook: facts["d_in"] for hook, facts in manifest["hooks"].items()}
    sink = new_rounds(folder, settings, d_in, seed)(number, None)
    start, left = manifest["starts"][number], manifest["buffer"]
    models = (inputs.subject, inputs.untrained, inputs.embeddings)
    watch = NormWatch(settings.all_hooks, norm_limit_of(inputs.subject, inputs.corpus, settings))
    skip = start["skip"]
    for batch in passes(
        models, inputs.corpus, "train", settings, settings.n_tokens, watch, done=start["pass"]
    ):
        part = slice(skip, skip + left)
        index = batch.index[part]
        sink.append({hook: rows[part] for hook, rows in batch.rows.items()}, index)
        left, skip = left - len(index), 0
        if not left:
            break
    found = numbered(sink.close(), number)
    then = {**{h: m["shards"] for h, m in manifest["hooks"].items()}, "index": manifest["index"]}
    for name, entries in found.items():
        if entries != [entry for entry in then[name]["train"] if entry["round"] == number]:
            raise StudyError(
                f"{name}: round {number + 1} of {len(manifest['starts'])} of the training "
                "activations came out with other bits than artifacts/extract has the checksums of: "
                "another processor, or other code; extract here (dvc repro -f extract), and see "
                "compute.bits for the same bits everywhere"
            )


def main(number: int) -> None:
    """Bring the round `number` of the study in this folder to .sae-repro/rolling."""
    study = load("params.yaml")
    choose(study.compute.bits)
    settings = study.extract
    prepare(device=settings.device, threads=settings.threads)
    corpus, subject, extracted = (Path("artifacts") / s for s in ("corpus", "subject", "extract"))
    check(extracted, "manifest.json")
    settings = settings.by_layer(layers_in(subject))
    inputs = load_inputs(corpus, subject, settings, study.seed)
    manifest = read_object(extracted / "manifest.json")
    shutil.rmtree(ROLLING, ignore_errors=True)  # never two rounds at once
    with replacing_folder(ROLLING) as folder:
        again(number, inputs, settings, manifest, seed=study.seed, folder=folder)


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(int(sys.argv[2]),), daemon=True).start()
    try:
        main(int(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(1)  # the stage has a line on it
    except StudyError as error:
        sys.exit(str(error))
    except Exception as error:
        if (line := disk_fault(error)) is None:
            raise
        sys.exit(line)
