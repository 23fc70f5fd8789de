"""The classes of head images: names, ids and colours, in CelebAMask-HQ's order.

The id of a class is its place in CLASS_NAMES; it is the pixel value in truth files. "Left" is left *in the image* of a
frontal head. Some released parsers use another permutation and are converted by name, never by position.
"""

from __future__ import annotations

CLASS_NAMES: tuple[str, ...] = (
    "background", "skin", "nose", "eyeglasses", "left_eye", "right_eye", "left_brow", "right_brow", "left_ear",
    "right_ear", "mouth", "upper_lip", "lower_lip", "hair", "hat", "earring", "necklace", "neck", "cloth",
)  # fmt: skip
CLASS_IDS: dict[str, int] = {name: index for index, name in enumerate(CLASS_NAMES)}

# One colour per class for pictures, in 0..255; left and right are two shades of one hue.
CLASS_COLOURS: tuple[tuple[int, int, int], ...] = (
    (255, 255, 255), (233, 181, 150), (214, 126, 92), (60, 60, 60), (40, 96, 210), (96, 160, 250), (20, 130, 70),
    (90, 190, 110), (200, 150, 60), (240, 200, 110), (110, 10, 40), (200, 30, 70), (240, 90, 120), (104, 72, 140),
    (250, 160, 30), (255, 220, 0), (0, 170, 170), (160, 110, 90), (120, 130, 140),
)  # fmt: skip

MIRROR_PAIRS: tuple[tuple[int, int], ...] = ((4, 5), (6, 7), (8, 9))  # ids that swap when an image is mirrored
