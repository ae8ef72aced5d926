"""params.yaml: one schema, read and checked before anything runs.

    study = load("params.yaml")
    study.cells["topk-x8-k16"].k

`params/S.py` is the schema of stage S; `study` is the whole of it, and the rules between sections.
Nothing is defined here: who needs one section depends on that section's module alone.
"""

from sae_repro.params.base import Section
from sae_repro.params.cell import Cell, saes_by_name
from sae_repro.params.compare import ClaimsFile, Compare
from sae_repro.params.compute import Compute
from sae_repro.params.control import Control
from sae_repro.params.corpus import (
    ActivationsSource,
    Corpus,
    FilesSource,
    HubSource,
    StoriesSource,
)
from sae_repro.params.evaluate import ConceptLabels, Evaluate
from sae_repro.params.extract import Extract
from sae_repro.params.hooks import (
    EMBEDDINGS,
    GIVEN,
    HOOKS,
    UNTRAINED,
    blocks_ahead,
    blocks_to_run,
    in_stream,
    layer_of,
    model_hook,
    on_random_weights,
    parts_of,
    weights_of,
)
from sae_repro.params.judge import ANSWERS, SCORE_INFO, Judge, PromptFile, ScoreInfo
from sae_repro.params.reading import load, parse
from sae_repro.params.recipes import read_cells
from sae_repro.params.report import Report
from sae_repro.params.study import Study, shape_problems, width_problems
from sae_repro.params.subject import (
    GgufSubject,
    HereSubject,
    HubSubject,
    LocalSubject,
    NoSubject,
    PretrainedSubject,
    Subject,
    SubjectChoice,
    TrainedSubject,
    Training,
)
from sae_repro.params.track import Track
from sae_repro.params.train import Train
from sae_repro.params.tune import Tune
from sae_repro.params.validation import check_section
from sae_repro.params.yaml_files import LOCK_VALUES, read_yaml

__all__ = [
    "ANSWERS",
    "EMBEDDINGS",
    "GIVEN",
    "HOOKS",
    "LOCK_VALUES",
    "SCORE_INFO",
    "UNTRAINED",
    "ActivationsSource",
    "Cell",
    "ClaimsFile",
    "Compare",
    "Compute",
    "ConceptLabels",
    "Control",
    "Corpus",
    "Evaluate",
    "Extract",
    "FilesSource",
    "GgufSubject",
    "HereSubject",
    "HubSource",
    "HubSubject",
    "Judge",
    "LocalSubject",
    "NoSubject",
    "PretrainedSubject",
    "PromptFile",
    "Report",
    "ScoreInfo",
    "Section",
    "StoriesSource",
    "Study",
    "Subject",
    "SubjectChoice",
    "Track",
    "Train",
    "TrainedSubject",
    "Training",
    "Tune",
    "blocks_ahead",
    "blocks_to_run",
    "check_section",
    "in_stream",
    "layer_of",
    "load",
    "model_hook",
    "on_random_weights",
    "parse",
    "parts_of",
    "read_cells",
    "read_yaml",
    "saes_by_name",
    "shape_problems",
    "weights_of",
    "width_problems",
]
