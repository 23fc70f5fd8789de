"""Parameters of the procedural head: their names, how they spread, and how a head is drawn from (seed, index)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

Law = tuple[float, float, float, float]  # mean, standard deviation, lowest, highest

# Lengths are in model units (see head_model.MODEL_SCALE). Eyes, brows and mouth are larger than life on purpose:
# a frontal head of 64x64 pixels must keep eye pixels after erosion, and a small GAN must learn them early.
IDENTITY: dict[str, Law] = {
    "head_width": (0.190, 0.007, 0.175, 0.206),
    "head_height": (0.218, 0.008, 0.200, 0.238),
    "head_depth": (0.215, 0.008, 0.195, 0.235),
    "jaw_width": (0.138, 0.009, 0.118, 0.160),
    "chin_y": (-0.252, 0.010, -0.280, -0.230),
    "chin_z": (0.088, 0.010, 0.065, 0.112),
    "chin_radius": (0.060, 0.006, 0.047, 0.076),
    "cheek_radius": (0.074, 0.006, 0.060, 0.088),
    "cheek_x": (0.082, 0.005, 0.070, 0.095),
    "cheek_y": (-0.060, 0.008, -0.080, -0.040),
    "brow_ridge": (0.008, 0.003, 0.002, 0.015),
    "eye_x": (0.0840, 0.0028, 0.078, 0.090),
    "eye_y": (0.014, 0.005, 0.002, 0.026),
    "eye_radius": (0.0600, 0.0014, 0.057, 0.063),
    "eye_width": (0.0515, 0.0015, 0.048, 0.055),
    "eye_opening": (0.0435, 0.0018, 0.040, 0.048),
    "eye_tilt": (0.05, 0.06, -0.10, 0.20),
    "nose_length": (0.088, 0.007, 0.072, 0.104),
    "nose_out": (0.056, 0.007, 0.040, 0.074),
    "nose_width": (0.0225, 0.0030, 0.016, 0.030),
    "nose_tip": (0.0230, 0.0025, 0.018, 0.029),
    "nose_bridge": (0.0125, 0.0020, 0.009, 0.018),
    "mouth_y": (-0.150, 0.007, -0.166, -0.135),
    "mouth_width": (0.0700, 0.0055, 0.058, 0.084),
    "lip_upper": (0.0180, 0.0018, 0.0150, 0.022),
    "lip_lower": (0.0225, 0.0020, 0.0185, 0.027),
    "ear_size": (0.062, 0.006, 0.048, 0.076),
    "ear_flare": (0.40, 0.13, 0.10, 0.75),
    "neck_radius": (0.092, 0.008, 0.075, 0.110),
    "shoulder": (0.33, 0.02, 0.28, 0.38),
    "brow_y": (0.094, 0.004, 0.085, 0.104),
    "brow_thickness": (0.0135, 0.0018, 0.0105, 0.018),
    "brow_arch": (0.012, 0.004, 0.002, 0.022),
    "hair_thickness": (0.032, 0.008, 0.018, 0.052),
    "hair_line": (0.190, 0.012, 0.168, 0.215),
    "hair_side": (0.200, 0.007, 0.186, 0.214),
    "hair_length": (-0.06, 0.15, -0.40, 0.06),
}
EXPRESSION: dict[str, Law] = {
    "smile": (0.55, 0.35, -0.15, 1.20),
    "mouth_open": (0.010, 0.006, 0.006, 0.022),
    "brow_raise": (0.0, 0.005, -0.008, 0.012),
    "eyelid": (1.0, 0.04, 0.90, 1.07),
    "gaze_x": (0.0, 0.13, -0.28, 0.28),
    "gaze_y": (0.0, 0.06, -0.14, 0.14),
}
# Nobody's face is a mirror image: each entry shifts or scales one side against the other.
ASYMMETRY: dict[str, Law] = {
    "shear": (0.0, 0.020, -0.045, 0.045),
    "eye_skew": (0.0, 0.0030, -0.006, 0.006),
    "eye_unequal": (0.0, 0.025, -0.05, 0.05),
    "brow_skew": (0.0, 0.0040, -0.008, 0.008),
    "nose_skew": (0.0, 0.0035, -0.008, 0.008),
    "mouth_skew": (0.0, 0.050, -0.11, 0.11),
    "ear_skew": (0.0, 0.006, -0.012, 0.012),
    "hair_parting": (0.0, 0.014, -0.030, 0.030),
}
LAWS: dict[str, Law] = {**IDENTITY, **EXPRESSION, **ASYMMETRY}
FLAGS: dict[str, float] = {
    "has_hair": 0.95,
    "mouth_is_open": 0.30,
    "has_hat": 0.08,
    "has_glasses": 0.12,
    "has_earring": 0.12,
    "has_necklace": 0.08,
}  # name -> probability
ACCESSORIES = ("has_hat", "has_glasses", "has_earring", "has_necklace")
LIGHTS = ("ambient", "key_light", "phase")  # scalars of the rendering, not of the shape
COLOURS = (
    "skin_colour",
    "hair_colour",
    "iris_colour",
    "lip_colour",
    "cloth_colour",
    "hat_colour",
    "glasses_colour",
    "background_low",
    "background_high",
    "light",
)  # [n, 3]; `light` is the unit direction towards the key light
SCALARS: tuple[str, ...] = (*LAWS, *FLAGS, *LIGHTS)

_HAIR = np.array(
    [
        [0.07, 0.05, 0.05],
        [0.22, 0.13, 0.08],
        [0.38, 0.22, 0.11],
        [0.78, 0.58, 0.26],
        [0.52, 0.17, 0.06],
        [0.52, 0.52, 0.55],
    ]
)
_HAIR_SHARE = np.array([0.28, 0.26, 0.18, 0.13, 0.09, 0.06])
_IRIS = np.array([[0.22, 0.12, 0.06], [0.34, 0.20, 0.08], [0.12, 0.34, 0.62], [0.16, 0.42, 0.20], [0.32, 0.38, 0.44]])
_IRIS_SHARE = np.array([0.34, 0.20, 0.24, 0.14, 0.08])
_SKIN_LIGHT, _SKIN_DARK = np.array([0.95, 0.76, 0.65]), np.array([0.42, 0.26, 0.18])


@dataclass(frozen=True)
class HeadParameters:
    """A batch of heads: tensors [n, 1] for every name of SCALARS and [n, 3] for every name of COLOURS.

    >>> heads = sample_heads(3, seed=0)
    >>> len(heads), len(heads[1:]), heads["eye_x"].shape
    (3, 2, torch.Size([3, 1]))
    """

    values: Mapping[str, Tensor]

    def __len__(self) -> int:
        return int(self.values["head_width"].shape[0])

    @overload
    def __getitem__(self, key: str) -> Tensor: ...

    @overload
    def __getitem__(self, key: int | slice | Tensor) -> HeadParameters: ...

    def __getitem__(self, key: str | int | slice | Tensor) -> Tensor | HeadParameters:
        """One tensor by name, or a smaller batch by index, slice, mask or index tensor."""
        if isinstance(key, str):
            return self.values[key]
        index = slice(key, key + 1 or None) if isinstance(key, int) else key
        return HeadParameters({name: value[index] for name, value in self.values.items()})

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> HeadParameters:
        """The same heads on another device or in another floating-point type."""
        return HeadParameters({name: value.to(device=device, dtype=dtype) for name, value in self.values.items()})

    def replace(self, **changes: float | Tensor) -> HeadParameters:
        """The same heads with some parameters set; numbers hold for every head."""
        unknown = sorted(set(changes) - set(self.values))
        if unknown:
            raise KeyError(f"no head parameter is called {unknown[0]!r}; the names are {sorted(self.values)}")
        new = {k: (v if isinstance(v, Tensor) else torch.full_like(self.values[k], v)) for k, v in changes.items()}
        return HeadParameters({**self.values, **new})


def _luminance(colour: np.ndarray) -> float:
    return float(colour @ np.array([0.30, 0.59, 0.11]))


def _colours(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Colours of one head; hair, brows and lips are kept apart from the skin so that parts can be told at 64x64."""
    melanin, blood = rng.random() ** 1.3 * 0.9, rng.random() - 0.5
    skin = _SKIN_LIGHT * (1 - melanin) + _SKIN_DARK * melanin + blood * np.array([0.05, -0.02, -0.03])
    hair = _HAIR[rng.choice(len(_HAIR), p=_HAIR_SHARE)] * (0.85 + 0.3 * rng.random())
    if abs(_luminance(hair) - _luminance(skin)) < 0.20:
        hair = hair * max(0.15, (_luminance(skin) - 0.22) / _luminance(hair))
    lip = np.array([0.80, 0.22, 0.24]) * (0.55 + 0.45 * _luminance(skin)) + rng.random() * np.array([0.10, 0.0, 0.05])
    azimuth, elevation = (rng.random() - 0.5) * 1.5, rng.random() * 0.7
    return {
        "skin_colour": skin,
        "hair_colour": hair,
        "iris_colour": _IRIS[rng.choice(len(_IRIS), p=_IRIS_SHARE)],
        "lip_colour": lip,
        "cloth_colour": rng.random(3) * 0.75 + 0.08,
        "hat_colour": rng.random(3) * 0.75 + 0.08,
        "glasses_colour": rng.random(3) * 0.30 + 0.03,
        "background_low": rng.random(3) * 0.9 + 0.05,
        "background_high": rng.random(3) * 0.9 + 0.05,
        "light": np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]),
    }


def sample_head(seed: int, index: int, accessories: bool = True, truncation: float = 1.0) -> dict[str, np.ndarray]:
    """Draw head number `index`: a function of (seed, index) alone, so head i never depends on how many are drawn."""
    rng = np.random.default_rng([seed, index])
    values: dict[str, np.ndarray] = {}
    for name, (mean, std, low, high) in LAWS.items():
        values[name] = np.array([np.clip(mean + truncation * std * rng.standard_normal(), low, high)])
    for name, probability in FLAGS.items():
        drawn = rng.random() < probability  # drawn in any case: switching accessories off must not move other draws
        values[name] = np.array([float(drawn and (accessories or name not in ACCESSORIES))])
    values["mouth_open"] = values["mouth_open"] * values["mouth_is_open"]
    values["ambient"] = np.array([0.50 + 0.12 * rng.random()])
    values["key_light"] = np.array([0.46 + 0.16 * rng.random()])
    values["phase"] = np.array([6.2831853 * rng.random()])
    return {**values, **_colours(rng)}


def sample_heads(n: int, seed: int, accessories: bool = True, truncation: float = 1.0, first: int = 0) -> HeadParameters:
    """Draw the heads numbered first ... first + n - 1 of a seed.

    Args:
        n: number of heads, at least 1.
        seed: non-negative integer.
        accessories: whether hats, glasses, earrings and necklaces may appear.
        truncation: factor of every standard deviation; 0 gives the mean shape (colours and flags still vary).
        first: index of the first head.

    >>> a, b = sample_heads(4, seed=7), sample_heads(1, seed=7, first=3)
    >>> bool((a["jaw_width"][3] == b["jaw_width"][0]).all())
    True
    """
    drawn = [sample_head(seed, first + i, accessories, truncation) for i in range(n)]
    names = (*SCALARS, *COLOURS)
    return HeadParameters({k: torch.from_numpy(np.stack([d[k] for d in drawn]).astype(np.float32)) for k in names})
