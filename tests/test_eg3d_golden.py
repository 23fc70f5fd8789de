"""The EG3D backbone reproduces reference tensors of the published code: forward, logits, R1, TV and gradients.

The small model comes out of its published checkpoint through the importer; of the 8xdc model only the tensors are stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from priorzoo.backbones.base import Latents, Sampling
from priorzoo.backbones.eg3d import EG3D
from priorzoo.backbones.eg3d.cameras import published_look_at
from priorzoo.backbones.eg3d.discriminator import resize
from priorzoo.backbones.eg3d.renderer import query_planes, render_rays
from priorzoo.core.camera import Camera
from priorzoo.core.streams import fixed_streams
from priorzoo.rendering.compositing import march_intervals
from priorzoo.rendering.rays import rays_from_camera
from priorzoo.training.run import load_run
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
COMMON: dict[str, Any] = {
    "noise": "const",
    "depth": "as_published",
    "discriminator_channel_base": 2048,
    "discriminator_channel_max": 16,
    "channel_base": 2048,
}
MODELS: dict[str, dict[str, Any]] = {
    "eg3d": {"z_dim": 64, "channel_max": 16, "samples_coarse": 8, "samples_fine": 8, "superresolution": "2x", "image_resolution": 128},
    "eg3d_8xdc": {
        "z_dim": 32,
        "channel_max": 24,
        "samples_coarse": 12,
        "samples_fine": 7,
        "superresolution": "8xdc",
        "image_resolution": 512,
    },
}
IMAGE_STRIDE = {"eg3d": 4, "eg3d_8xdc": 16}
PLANE_STRIDE = {"eg3d": 16, "eg3d_8xdc": 32}
D_SEEDS = {"eg3d": 1254, "eg3d_8xdc": 2045}
TV_SEEDS = {"eg3d": 1264, "eg3d_8xdc": 2055}
DETERMINISTIC = Sampling("deterministic")
IMAGES = frozenset({"image", "image_raw", "depth", "opacity"})


class StoredStreams:
    """Streams that hand out the reference's random numbers."""

    def __init__(self, jitter: Tensor, u: Tensor) -> None:
        self._arrays = {"jitter": jitter, "importance": u}

    def __call__(self, consumer: str) -> Any:
        array = self._arrays[consumer]

        class Stored:
            def uniform(self, *shape: int) -> Tensor:
                return array.reshape(-1, *shape).clone()

        return Stored()


def loaded(name: str) -> EG3D:
    """The model with the stored tensors."""
    backbone = EG3D(**COMMON, **MODELS[name])
    with np.load(GOLDEN / name / "weights.npz") as stored:
        weights = {key: torch.from_numpy(stored[key].astype(np.float32)) for key in stored}
    for prefix, part in (("G.", backbone.generator), ("D.", backbone.discriminator)):
        state = {key[2:]: value for key, value in weights.items() if key.startswith(prefix) and "dataset_label_std" not in key}
        missing, unexpected = part.load_state_dict(state, strict=False)
        assert not unexpected and all(key.endswith("resample_filter") for key in missing)
    return backbone


def imported(pickle: Path) -> EG3D:
    """The model as its checkpoint describes it; only what the references state otherwise is changed."""
    backbone = load_run(pickle).backbone(average=True).requires_grad_(True)
    assert isinstance(backbone, EG3D)
    backbone.set_options(noise=COMMON["noise"], depth=COMMON["depth"])
    return backbone


class Case:
    """One reference model with its weights and tensors; ``pickle`` is its published checkpoint, if there is one."""

    def __init__(self, name: str, pickle: Path | None = None) -> None:
        self.name = name
        self.backbone = loaded(name) if pickle is None else imported(pickle)
        with np.load(GOLDEN / name / "io.npz") as stored:
            self.io = {key: torch.from_numpy(stored[key]) for key in stored}
        self.camera = Camera.from_label(self.io["c"])
        with torch.no_grad():
            self.latents = self.prepare()
            self.shared = self.backbone.with_planes(self.latents)

    def prepare(self, **options: Any) -> Latents:
        return self.backbone.prepare(Latents({"z": self.io["z"]}), self.io["c_cond"], **options)

    def render(self, variant: str = "det", *, take: slice = slice(None), needs: frozenset[str] = IMAGES, **options: Any) -> Any:
        """Render with options changed for this call; the planes are shared between calls unless the noise changes."""
        before = self.backbone.options
        try:
            self.backbone.set_options(**options)
            latents = self.latents if "noise" in options else self.shared
            camera = self.camera[take]
            streams: Any = fixed_streams(0, len(camera))
            if variant == "inj":
                u = self.io["inj_u"].unflatten(0, (2, 256))
                streams = StoredStreams(self.io["inj_jitter"][take], u[take])
            sampling = Sampling() if variant == "inj" else DETERMINISTIC
            resolution = self.io[f"{variant}/image_raw"].shape[-1]
            return self.backbone.render(latents[take], camera, needs, streams=streams, resolution=resolution, sampling=sampling)
        finally:
            self.backbone.options, self.backbone.rendering = before, before.rendering()


@pytest.fixture(scope="module", params=list(MODELS))
def case(request: pytest.FixtureRequest, published_pickle: Path) -> Iterator[Case]:
    yield Case(request.param, published_pickle if request.param == "eg3d" else None)


@pytest.fixture(scope="module")
def small_case(published_pickle: Path) -> Iterator[Case]:
    yield Case("eg3d", published_pickle)


def close(got: Tensor, wanted: Tensor, atol: float = 1e-4) -> None:
    assert got.shape == wanted.shape
    error = (got.double() - wanted.double()).abs().max().item()
    assert error <= atol, f"largest error {error:.3g}, allowed {atol:.3g}"


def test_the_imported_model_is_the_reference_s(small_case: Case) -> None:
    """Every option, of the importer's making, and every tensor."""
    wanted = EG3D(**COMMON, **MODELS["eg3d"], raw_image="as_published", neural_resolution=16, discriminator="dual").options
    assert small_case.backbone.options == wanted
    own = loaded("eg3d").state_dict()
    found = small_case.backbone.state_dict()
    assert list(found) == list(own) and all(torch.equal(found[k], own[k]) for k in own)


def test_mapping_and_truncation(case: Case) -> None:
    io = case.io
    with torch.no_grad():
        ws = case.prepare()["ws"]
        assert ws.shape[1] == int(io["num_ws"])
        close(ws[:, 0], io["ws"])
        close(case.prepare(truncation=0.5)["ws"][:, 0], io["ws_psi0.5"])
        before = case.backbone.options
        case.backbone.set_options(truncation_cutoff=5)
        close(case.prepare(truncation=0.7)["ws"][:, [0, 4, 5, 13]], io["ws_psi0.7_cut5"])
        for zeroed in ({"conditioning": "zero"}, {"conditioning_scale": 0.0}):  # 0 is what a missing c_scale means
            case.backbone.set_options(**{"conditioning": "camera", "truncation_cutoff": None, **zeroed})
            close(case.prepare()["ws"][:, 0], io["ws_czero"])
        case.backbone.set_options(conditioning="camera", conditioning_scale=2.0)
        close(case.backbone.prepare(Latents({"z": io["z"]}), io["c_cond"] / 2)["ws"][:, 0], io["ws"])
        case.backbone.options = before


def test_planes(case: Case) -> None:
    planes = case.shared["planes"].flatten(1, 2)
    stride = PLANE_STRIDE[case.name]
    close(planes[:, :, ::stride, ::stride], case.io["planes_sub"])
    close(planes[:, :, 100:104, 120:126], case.io["planes_patch"])
    close(planes.double().mean(dim=(2, 3)), case.io["planes_mean"])
    close(planes.double().abs().mean(dim=(2, 3)), case.io["planes_absmean"])
    with torch.no_grad():
        silent = case.backbone.generator.planes(case.latents["ws"][:1], None).flatten(1, 2)
    close(silent[:, :, ::32, ::32], case.io["planes_nonoise_sub"])


def test_rays(case: Case) -> None:
    origins, directions = rays_from_camera(case.camera, 16, 16)
    close(directions, case.io["ray_dirs"], 1e-6)
    close(origins[:, :1], case.io["ray_origins"], 1e-6)


@pytest.mark.parametrize("mode", ["det", "inj"])
@torch.no_grad()
def test_forward_and_its_insides(case: Case, mode: str) -> None:
    io, stride = case.io, IMAGE_STRIDE[case.name]
    scene = case.render(mode, needs=frozenset({"image_raw", "depth"}))
    close(scene.image_raw, io[f"{mode}/image_raw"])
    close(scene.depth, io[f"{mode}/image_depth"])
    image = case.render(mode, needs=frozenset({"image"})).image
    close(image[:, :, ::stride, ::stride], io[f"{mode}/image"])
    close(torch.stack([image.double().mean(), image.double().std(correction=0)]), io[f"{mode}/image_mean_std"])  # of every pixel
    close(scene.weights.sum(-1), io[f"{mode}/weights_sum"][..., 0])
    count = io[f"{mode}/depths_coarse"].shape[2]
    drawn, raw = scene.samples.distances, scene.samples.raw
    close(drawn[..., :count], io[f"{mode}/depths_coarse"][..., 0])
    close(drawn[..., count:], io[f"{mode}/depths_fine"][..., 0].sort(-1).values)  # drawn in sorted order here
    sigma = io[f"{mode}/sigma_coarse"][..., 0]
    close(raw[..., :count], sigma, 5e-5 * sigma.abs().max().item())
    close(march_intervals(raw[..., :count], drawn[..., :count]).weights, io[f"{mode}/weights_coarse"][..., 0])


@pytest.mark.parametrize("mode", ["det", "inj"])
@torch.no_grad()
def test_final_features(case: Case, mode: str) -> None:
    """All 32 channels that super-resolution reads, in (-1, 1)."""
    backbone, io = case.backbone, case.io
    origins, directions = rays_from_camera(case.camera, 16, 16)
    jitter, u = io["inj_jitter"][..., 0], io["inj_u"].unflatten(0, (2, 256))
    if mode == "det":
        jitter, u = torch.full_like(jitter, 0.5), torch.linspace(0, 1, u.shape[2]).expand_as(u)
    result = render_rays(case.shared["planes"], backbone.generator.decoder, origins, directions, backbone.rendering, jitter=jitter, u=u)
    assert result.features is not None
    close(result.features.transpose(1, 2)[:, ::7], io[f"{mode}/feature_sub"])


VARIANTS: dict[str, dict[str, Any]] = {
    "nr64_inplace": {},
    "no_importance": {"samples_fine": 0},
    "sr_noise_const": {"superresolution_noise": "const"},
    "white_back": {"white_back": True},
    "disparity": {"disparity": True},
    "auto_rays": {"near": "auto", "far": "auto", "box_warp": 0.4},
    "backbone_noise_none": {"noise": "none"},
}


@pytest.mark.parametrize("variant", list(VARIANTS))
@torch.no_grad()
def test_variants(small_case: Case, variant: str) -> None:
    scene = small_case.render(variant, **VARIANTS[variant])
    close(scene.image_raw, small_case.io[f"{variant}/image_raw"])
    close(scene.depth, small_case.io[f"{variant}/image_depth"])
    close(scene.image[:, :, ::4, ::4], small_case.io[f"{variant}/image"])


@torch.no_grad()
def test_the_in_place_quirk_is_an_option(small_case: Case) -> None:
    """`rendered` is the rendering; what the published code hands out, and an imported model with it, differs from that visibly."""
    plain = small_case.render("nr64_inplace", needs=frozenset({"image_raw"}), raw_image="rendered").image_raw
    assert (plain - small_case.io["nr64_inplace/image_raw"]).abs().max() > 0.01


@torch.no_grad()
def test_variants_of_8xdc(case: Case) -> None:
    """Runs on the 2x model too, where it repeats `disparity`: both models share the options' code."""
    stride = IMAGE_STRIDE[case.name]
    for variant, options in (("disparity", {"disparity": True}), ("nr48", {})):
        if f"{variant}/image" not in case.io:
            continue
        scene = case.render(variant, needs=frozenset({"image_raw", "depth"}), **options)
        close(scene.image_raw, case.io[f"{variant}/image_raw"])
        close(scene.depth, case.io[f"{variant}/image_depth"])
        if variant == "nr48":  # a third neural resolution: super-resolution's input is resized from it
            image = case.render(variant, take=slice(0, 1), needs=frozenset({"image"})).image
            close(image[:, :, ::stride, ::stride], case.io["nr48/image"][:1])


@torch.no_grad()
def test_point_queries(case: Case) -> None:
    points, backbone = case.io["pts"], case.backbone
    sample = backbone.field(case.shared)(points)
    close(sample.raw, case.io["pts_sigma"][..., 0])
    assert sample.colour is not None
    close((sample.colour[:, ::4] + 1) / 2, case.io["pts_rgb"][..., :3])
    _, colours = query_planes(case.shared["planes"], backbone.generator.decoder, points, backbone.rendering)
    assert colours is not None
    close(colours.transpose(1, 2)[:, ::4], case.io["pts_rgb"])


@torch.no_grad()
def test_expected_depth_agrees_with_the_published_one_where_the_ray_is_not_empty(case: Case) -> None:
    scene = case.render("det", needs=frozenset({"depth", "opacity"}), depth="expected")
    full = scene.opacity > 1e-3
    assert full.float().mean() > 0.5
    close(scene.depth[full], case.io["det/image_depth"][full])


def discriminator_inputs(case: Case) -> tuple[Tensor, Tensor]:
    size, seed = case.backbone.image_resolution, D_SEEDS[case.name]
    image = np.random.RandomState(seed).uniform(-1, 1, (4, 3, size, size)).astype(np.float32)
    raw = np.random.RandomState(seed + 1).uniform(-1, 1, (4, 3, 16, 16)).astype(np.float32)
    return torch.from_numpy(image).requires_grad_(), torch.from_numpy(raw).requires_grad_()


def test_logits_and_r1(case: Case) -> None:
    image, raw = discriminator_inputs(case)
    logits = case.backbone.criticise({"image": image, "image_raw": raw}, case.io["d_c"])
    close(logits[:, None], case.io["d_logits"])
    gradients = torch.autograd.grad(logits.sum(), [image, raw], create_graph=True)
    parts = torch.stack([g.square().sum(dim=(1, 2, 3)) for g in gradients])
    relative = case.io["r1_parts"].abs().max().item()
    close(parts, case.io["r1_parts"], 1e-3 * relative)
    close(parts.sum(0), case.io["r1_penalty"], 1e-3 * case.io["r1_penalty"].abs().max().item())
    parts.sum().backward()  # the penalty itself can be differentiated
    slope = case.backbone.discriminator.get_parameter("b4.conv.weight").grad
    assert slope is not None and slope.abs().sum() > 0
    case.backbone.zero_grad(set_to_none=True)


def test_antialiased_resize(case: Case) -> None:
    image, _ = discriminator_inputs(case)
    close(resize(image.detach()[:1], 16), case.io["resize_aa"], 1e-5)


def check_generator_gradients(case: Case) -> None:
    backbone, io = case.backbone, case.io
    ws = case.latents["ws"].clone().requires_grad_()
    streams = fixed_streams(0, 2)
    scene = backbone.render(
        Latents({"ws": ws}),
        case.camera,
        frozenset({"image", "image_raw"}),
        streams=streams,
        resolution=16,
        sampling=DETERMINISTIC,
    )
    logits = backbone.criticise(backbone.critic_input(scene), io["c"])
    close(logits[:, None], io["d_logits_gen"])
    loss = torch.nn.functional.softplus(-logits).mean()
    close(loss.detach(), io["g_loss"], 1e-5)
    loss.backward()
    assert ws.grad is not None
    names = [key.removeprefix("ggrad/") for key in io if key.startswith("ggrad/") and key != "ggrad/ws"]
    assert len(names) == 5
    pairs = [(ws.grad[:, :, ::4], io["ggrad/ws"])]
    for name in names:
        gradient = backbone.generator.get_parameter(name).grad
        assert gradient is not None
        pairs.append((gradient, io[f"ggrad/{name}"]))
    for got, wanted in pairs:
        close(got, wanted, 1e-3 * wanted.abs().max().item())
    backbone.zero_grad(set_to_none=True)


def test_generator_loss_and_gradients(small_case: Case) -> None:
    check_generator_gradients(small_case)


@pytest.mark.slow  # a minute and 5 GB: two 512 x 512 images; `test_eg3d_superresolution` has the module's gradients at small sizes
def test_generator_loss_and_gradients_of_8xdc() -> None:
    check_generator_gradients(Case("eg3d_8xdc"))


def test_density_tv(case: Case) -> None:
    seed = TV_SEEDS[case.name]
    first = np.random.RandomState(seed).uniform(-1, 1, (2, 1000, 3)).astype(np.float32)
    second = first + np.random.RandomState(seed + 1).randn(2, 1000, 3).astype(np.float32) * np.float32(0.004)
    field = case.backbone.field(case.shared)
    loss = 0.25 * (field(torch.from_numpy(first)).raw - field(torch.from_numpy(second)).raw).abs().mean()
    close(loss.detach(), case.io["tv_loss"], 1e-5)
    loss.backward()
    gradient = case.backbone.generator.get_parameter("decoder.net.2.weight").grad
    assert gradient is not None
    wanted = case.io["tvgrad/decoder.net.2.weight"]
    close(gradient, wanted, 1e-3 * wanted.abs().max().item())
    case.backbone.zero_grad(set_to_none=True)


def test_camera_helper(case: Case) -> None:
    io = case.io
    camera = published_look_at(math.pi / 2 + io["cam_yaw"], math.pi / 2 + io["cam_pitch"], (0.0, 0.0, 0.2))
    close(camera.cam2world, io["cam2world"], 1e-5)
