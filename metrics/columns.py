"""What evaluation measures: the name, label, unit and goal of every column, in the order of tables."""

from __future__ import annotations

from dataclasses import dataclass

LOWER, HIGHER, TRUE = "lower", "higher", "true"
GROUPS = ("images", "truth", "estimated", "distribution")


@dataclass(frozen=True)
class Column:
    """One measured quantity.

    ``group``: images, truth (held-out heads against their true buffers), estimated (generated samples against a shape
    estimator) or distribution (statistics beside those of true heads). ``goal``: lower or higher is better, or closer
    to the true value is.
    """

    key: str
    label: str
    unit: str
    group: str
    goal: str
    meaning: str


_TABLE = (
    Column("fd_heads", "FD(heads)", "", "images", LOWER, "Frechet distance of our own features of heads; not FID"),
    Column("kd_heads", "KD(heads) x100", "", "images", LOWER, "kernel distance of our own features of heads; not KID"),
    Column("fid", "FID", "", "images", LOWER, "Frechet distance of Inception features, by torch-fidelity"),
    Column("kid", "KID x100", "", "images", LOWER, "kernel distance of Inception features"),
    Column("is", "IS", "", "images", HIGHER, "Inception Score of generated images, by torch-fidelity"),
    Column(
        "precision",
        "precision",
        "",
        "images",
        HIGHER,
        "share of generated images on the manifold of real ones, in the same features",
    ),
    Column(
        "recall",
        "recall",
        "",
        "images",
        HIGHER,
        "share of real images on the manifold of generated ones; without interval",
    ),
    Column(
        "truth_depth",
        "depth",
        "deviations",
        "truth",
        LOWER,
        "RMS difference of depths standardised over both foregrounds",
    ),
    Column("truth_normal_skin", "normals, skin", "deg", "truth", LOWER, "mean angle to the true normal on true skin"),
    Column("truth_normal_eyes", "normals, eyes", "deg", "truth", LOWER, "mean angle to the true normal on true eyes"),
    Column(
        "truth_normal_foreground",
        "normals, all",
        "deg",
        "truth",
        LOWER,
        "mean angle to the true normal on the foreground",
    ),
    Column("truth_iou", "foreground IoU", "", "truth", HIGHER, "intersection over union with the true foreground"),
    Column("truth_image", "inversion's image error", "", "truth", LOWER, "RMS colour difference of the inverted image"),
    Column(
        "estimated_depth",
        "depth (est.)",
        "deviations",
        "estimated",
        LOWER,
        "as depth, against the estimator's depth of the generated image",
    ),
    Column(
        "estimated_normal_skin",
        "normals, skin (est.)",
        "deg",
        "estimated",
        LOWER,
        "mean angle to the estimated normal on skin",
    ),
    Column(
        "estimated_normal_eyes",
        "normals, eyes (est.)",
        "deg",
        "estimated",
        LOWER,
        "mean angle to the estimated normal on eyes",
    ),
    Column(
        "estimated_normal_foreground",
        "normals, all (est.)",
        "deg",
        "estimated",
        LOWER,
        "mean angle to the estimated normal, foreground",
    ),
    Column(
        "segmented_iou",
        "foreground IoU (seg.)",
        "",
        "estimated",
        HIGHER,
        "intersection over union of opacity with what a segmenter sees as foreground in the generated image",
    ),
    Column(
        "sr_skin",
        "SR skin",
        "px^2",
        "distribution",
        TRUE,
        "mean smoothness residual (SSR eq. 1) on skin, in pixel pitches squared",
    ),
    Column("sr_skin_top", "SR skin, top 70 %", "px^2", "distribution", TRUE, "mean of the largest 70 % of it"),
    Column("sr_eyes", "SR eyes", "px^2", "distribution", TRUE, "mean smoothness residual on eyes"),
    Column("sr_eyes_top", "SR eyes, top 70 %", "px^2", "distribution", TRUE, "mean of the largest 70 % of it"),
    Column(
        "roughness_skin",
        "roughness skin",
        "deg",
        "distribution",
        TRUE,
        "mean angle between neighbouring normals on skin",
    ),
    Column(
        "roughness_eyes",
        "roughness eyes",
        "deg",
        "distribution",
        TRUE,
        "mean angle between neighbouring normals on eyes",
    ),
    Column(
        "ray_deviation",
        "thickness along rays",
        "px",
        "distribution",
        TRUE,
        "deviation of the weights along rays; a surface has 0",
    ),
    Column(
        "reprojection",
        "view disagreement",
        "px",
        "distribution",
        TRUE,
        "median distance of one view's surface to a neighbouring view's",
    ),
)
COLUMNS: dict[str, Column] = {column.key: column for column in _TABLE}
