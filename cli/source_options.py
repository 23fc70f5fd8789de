"""Options that sample, video and mesh share: what is drawn from, which latents, which cameras, on what device, over what."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

SourcePlace: TypeAlias = Annotated[
    str,
    typer.Argument(help="A run folder, a checkpoint, a .safetensors with its card, a shipped name, or an official .pkl.", metavar="SOURCE"),
]
Seeds: TypeAlias = Annotated[str, typer.Option("--seeds", help="Which latents: numbers and ranges, such as 0-3,7.")]
Truncation: TypeAlias = Annotated[
    float, typer.Option("--truncation", min=0.0, max=1.0, help="psi: 1 is the model's own law, 0 its average head.")
]
OfficialLatents: TypeAlias = Annotated[
    bool, typer.Option("--official-latents", help="Draw z by numpy's RandomState(seed), as the published scripts do.")
]
Radius: TypeAlias = Annotated[
    float | None, typer.Option("--radius", help="Distance of the cameras from the origin.", show_default="the checkpoint's, or 2.7")
]
Focal: TypeAlias = Annotated[
    float | None, typer.Option("--focal", help="Focal length in image widths.", show_default="4.2647; ShapeNet Cars: 1.7074")
]
What: TypeAlias = Annotated[
    str,
    typer.Option(
        "--what",
        help="What is drawn, with commas: image, image_raw, depth, normals, shading, opacity, transmittance; of a model with a background "
        "also foreground, background.",
    ),
]
Samples: TypeAlias = Annotated[
    int | None, typer.Option("--samples", min=4, help="Coarse and as many fine samples a ray.", show_default="the model's own")
]
RenderedAt: TypeAlias = Annotated[
    int | None, typer.Option("--resolution", min=4, help="Side of the volume rendering in pixels.", show_default="the model's own")
]
DepthRange: TypeAlias = Annotated[
    str | None,
    typer.Option("--depth-range", help="Nearest and farthest depth of the colours.", show_default="what the field's cube allows"),
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
Device: TypeAlias = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
