"""What each metric is called in a figure, the axis that it is drawn on, and the sign of a verdict."""

from dataclasses import dataclass
from typing import Literal

SIGNS = {"reproduced": "✓", "partly": "◐", "not reproduced": "✗"}


@dataclass(frozen=True)
class Metric:
    """`axis` is "log" for what spans powers of ten, "share" for 0 to 1, "correlation" for -1 to 1, else "linear"."""

    label: str
    meaning: str = ""
    axis: Literal["log", "share", "correlation", "linear"] = "linear"


METRICS = {
    "log_partition": Metric("log Z"),
    "kl_data_model": Metric("KL(D‖T)", "nats", "log"),
    "kl_data_generator": Metric("KL(D‖G)", "nats", "log"),
    "kl_generator_model": Metric("KL(G‖T)", "nats", "log"),
    "tv_data_model": Metric("TV(D, T)", "total variation", "share"),
    "tv_data_generator": Metric("TV(D, G)", "total variation", "share"),
    "tv_generator_model": Metric("TV(G, T)", "total variation", "share"),
    "integrable_within": Metric("Z settles", "half side of a square", "log"),
    "modes_covered": Metric("modes covered", "share", "share"),
    "mode_share_smallest": Metric("emptiest mode", "share of its due", "share"),
    "inside_99": Metric("inside the data's 99 %", "share of samples", "share"),
    "occupancy_error": Metric("occupancy error", "total variation", "share"),
    "wasserstein2": Metric("2-Wasserstein distance", "", "log"),
    "sliced_wasserstein2": Metric("sliced 2-Wasserstein distance", "", "log"),
    "rank_correlation": Metric("at the data", "rank correlation", "correlation"),
    "rank_correlation_near": Metric("near the data", "rank correlation", "correlation"),
    "rank_correlation_far": Metric("in the whole box", "rank correlation", "correlation"),
    "classes_found": Metric("digits", "of ten"),
    "kl_to_uniform": Metric("evenness", "KL, nats", "log"),
    "confidence": Metric("confidence", "mean", "share"),
    "frechet": Metric("Fréchet", "", "log"),
    "recall": Metric("recall", "share", "share"),
    "auroc_inverted": Metric("inverted", "AUROC", "share"),
    "auroc_shuffled": Metric("shuffled", "AUROC", "share"),
    "auroc_noise": Metric("noise", "AUROC", "share"),
    "auroc_letters": Metric("letters", "AUROC", "share"),
    "path_confidence_z": Metric("confidence", "lowest mean", "share"),
    "crossed_8_2_by_3": Metric("8 – 3 – 2", "share of lines", "share"),
    "crossed_5_2_by_3": Metric("5 – 3 – 2", "share of lines", "share"),
    "crossed_7_4_by_9": Metric("7 – 9 – 4", "share of lines", "share"),
    "negentropy": Metric("activations from normal", "mean, nats", "log"),
    "negentropy_largest": Metric("the farthest activation", "nats", "log"),
    "energy_sd": Metric("sd of E at the data", "nats", "log"),
    "entropy_error": Metric("|change of Eq. 15 − change of H(G)|", "nats", "log"),
    "gradient_cosine": Metric("gradients of Eqs. 8 and 7", "cosine", "correlation"),
}


def metric_named(name: str) -> Metric:
    """The metric, and for one that is not listed its own name in plain words."""
    plain = name.replace("_", " ")
    return METRICS.get(name) or Metric(plain, axis="correlation" if "cosine" in name else "linear")
