"""First columns of the tables, in this order; what a modality or a run adds follows."""

from __future__ import annotations

# fmt: off
LEADERBOARD = (
    "rank", "scheme", "modality", "generator", "bits", "bit_accuracy", "bit_accuracy_lo", "bit_accuracy_hi",
    "identification", "identification_n", "capacity_users", "fpr_upper", "quality_metric", "quality_original",
    "quality_fingerprinted", "quality_delta", "paired_metric", "paired_value", "robustness_content",
    "robustness_content_worst", "robustness_model", "robustness_model_worst", "robustness_coalition",
    "seconds_per_copy", "fit_seconds", "users", "items", "preset", "version",
)
"""First columns of ``leaderboard.csv``, in this order."""

ATTACKS = (
    "scheme", "modality", "generator", "attack", "target", "strength", "unit", "bit_accuracy", "bit_accuracy_lo",
    "bit_accuracy_hi", "identification", "identification_lo", "identification_hi", "identification_n",
    "identification_5", "identification_20", "caught", "framed", "bit_accuracy_majority",
    "fpr", "fpr_upper", "negatives",
)
CAPACITY = (
    "scheme", "items", "registered", "tau", "identification", "lo", "hi", "resolvable", "users",
)
# fmt: on
