"""Files that recipes name and that nobody ships: where each comes from, in words; nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

_CHECKPOINT = "one of NVIDIA's EG3D checkpoints: model eg3d of nvidia/research in the NGC catalogue (github.com/NVlabs/eg3d links it)"
_PREPARED = "made by EG3D's data set preprocessing (github.com/NVlabs/eg3d, its README)"
PUBLIC = {
    "ffhq512-128.pkl": _CHECKPOINT,
    "ffhqrebalanced512-64.pkl": _CHECKPOINT,
    "ffhqrebalanced512-128.pkl": _CHECKPOINT,
    "afhqcats512-128.pkl": _CHECKPOINT,
    "shapenetcars128-64.pkl": _CHECKPOINT,
    "ffhq512-64.pkl": (
        "the model that ffhq/eg3d_base trains; whether the published file can be had was not checked: train that recipe and give its run, "
        "or begin from ffhqrebalanced512-64.pkl"
    ),
    "FFHQ_512.zip": f"FFHQ, {_PREPARED}",
    "FFHQ_rebalanced_512.zip": f"FFHQ with rare poses repeated, {_PREPARED}",
    "afhq.zip": f"the cats of AFHQv2, {_PREPARED}",
    "cars_train.zip": f"ShapeNet cars, {_PREPARED}",
    "weights-inception-2015-12-05-6726825d.pth": "torch-fidelity's Inception weights, by the releases of github.com/toshas/torch-fidelity",
}
"""Where public files come from, by the names under which they are known."""

KINDS = {
    "data": "a data set in EG3D's format, zip or folder",
    "evaluation": "torch-fidelity's Inception weights",
}


def origin_of(path: str, key: str = "") -> str:
    """Return where a file comes from, judged by its name, else what is wanted at that key of a recipe.

    >>> origin_of("data/FFHQ_512.zip")
    "FFHQ_512.zip: FFHQ, made by EG3D's data set preprocessing (github.com/NVlabs/eg3d, its README)"
    >>> origin_of("mine.zip", "data.path")
    "a data set in EG3D's format, zip or folder"
    """
    name = Path(path).name
    return f"{name}: {PUBLIC[name]}" if name in PUBLIC else KINDS.get(key.partition(".")[0], "")
