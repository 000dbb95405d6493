"""How well a tracker segments: J, F and J&F as DAVIS defines them, on annotated sequences."""

from phoneward.runtime.evaluation.davis import davis_sequences
from phoneward.runtime.evaluation.metrics import contour_accuracy, region_similarity
from phoneward.runtime.evaluation.prompting import PromptKind
from phoneward.runtime.evaluation.protocol import Evaluable, Step, evaluate
from phoneward.runtime.evaluation.result import EvaluationResult
from phoneward.runtime.evaluation.sequence import Sequence

__all__ = [
    "Evaluable",
    "EvaluationResult",
    "PromptKind",
    "Sequence",
    "Step",
    "contour_accuracy",
    "davis_sequences",
    "evaluate",
    "region_similarity",
]
