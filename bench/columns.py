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
WORST = (
    "worst_attack", "worst_strength", "worst_unit", "worst_quality", "worst_bit_accuracy", "worst_bit_accuracy_lo",
    "worst_bit_accuracy_hi", "worst_identification", "worst_identification_lo", "worst_identification_hi",
    "worst_caught",
)
AREAS = (
    "bit_accuracy_auc", "bit_accuracy_auc_lo", "bit_accuracy_auc_hi", "identification_auc", "identification_auc_lo",
    "identification_auc_hi",
)
ROBUSTNESS = (
    "scheme", "target", "category", "attack", "unit", "strengths", "usable", "quality_mildest", "quality_strongest",
    *AREAS, *WORST,
)
CATEGORIES = ("scheme", "target", "category", "attacks", "usable", *AREAS, *WORST)
# fmt: on
