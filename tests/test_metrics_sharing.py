"""An evaluation shared out to processes is the one of a single process; stopped it goes on; real images are read once."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analytic import AnalyticColours, AnalyticSphere
from priorzoo.core.errors import DataError, PriorzooError, RunError
from priorzoo.core.recipe.schema import Evaluation, GeometrySampling, Inversion
from priorzoo.data.dataset import Dataset
from priorzoo.data.heads import HeadsFiles, write_heads
from priorzoo.metrics import generating
from priorzoo.metrics.evaluation import Evaluator
from priorzoo.metrics.feature_files import read_features, write_features
from priorzoo.metrics.generating import generated_features, shards_of
from priorzoo.metrics.images import Extractor, HeadsFeatures
from priorzoo.metrics.protocol import Result, require_equal_protocols
from priorzoo.metrics.real_features import real_features
from priorzoo.metrics.reference import EvaluationData
from priorzoo.metrics.sharing import ALONE, Processes, shared_out
from priorzoo.segmenters.heads_shape import HeadsEstimator
from priorzoo.training.measuring import save_result, unfinished_folder
from torch import Tensor

PLAN = Evaluation(
    images=11, batch=2, geometry_samples=5, held_out=3, sampling=GeometrySampling(coarse=6, fine=0),
    inversion=Inversion(steps=2, learning_rate=0.1, resolution=8),
)  # fmt: skip


class Threads(Processes):
    """Processes as threads of this one, so that what they share can be looked at."""

    def __init__(self, rank: int, count: int, table: dict[int, Any], wait: Callable[[], Any]) -> None:
        self.rank, self.count, self.table, self.wait = rank, count, table, wait

    def gather(self, value: Any) -> list[Any] | None:
        self.table[self.rank] = value
        self.wait()
        everybody = [self.table[rank] for rank in range(self.count)]
        self.wait()
        return everybody if self.rank == 0 else None

    def broadcast(self, value: Any) -> Any:
        if self.rank == 0:
            self.table[-1] = value
        self.wait()
        first = self.table[-1]
        self.wait()
        return first


def together(count: int, work: Callable[[Processes], Any]) -> list[Any]:
    """What each of ``count`` processes returns, or the error that it raises."""
    barrier, table = threading.Barrier(count, timeout=60), dict[int, Any]()

    def one(rank: int) -> Any:
        try:
            return work(Threads(rank, count, table, barrier.wait))
        except (PriorzooError, MemoryError) as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> HeadsFiles:
    return write_heads(tmp_path_factory.mktemp("heads") / "heads.zip", images=10, resolution=16, held_out=4, supersample=1)


def evaluator(heads: HeadsFiles, processes: Processes = ALONE, plan: Evaluation = PLAN, **options: Any) -> Evaluator:
    data = EvaluationData(Dataset(heads.images), heads.held_out, heads.truth)
    return Evaluator(plan, data, segmenter=AnalyticColours(), estimator=HeadsEstimator(), processes=processes, **options)


def ball(radius: float = 0.25) -> AnalyticSphere:
    return AnalyticSphere(radius=radius, neural_resolution=16, image_resolution=16)


# ------------------------------------------------------------------------------------------------------- sharing out


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_items_come_back_in_order_however_many_share_them(count: int) -> None:
    made = together(count, lambda processes: shared_out(processes, range(7), lambda item: (item, processes.rank)))
    assert made[0] == [(item, item % count) for item in range(7)]
    assert made[1:] == [None] * (count - 1)


def test_an_error_of_one_is_raised_on_all() -> None:
    def work(item: int) -> int:
        if item == 4:
            raise DataError("image 4 is damaged")
        return item

    made = together(3, lambda processes: shared_out(processes, range(6), work))
    assert [str(error) for error in made] == ["image 4 is damaged"] * 3


def test_an_unforeseen_error_of_one_stops_all_and_is_itself_where_it_happened() -> None:
    def work(item: int) -> int:
        if item == 4:
            raise MemoryError("no room for image 4")
        return item

    first, second, third = together(3, lambda processes: shared_out(processes, range(6), work))
    assert isinstance(second, MemoryError)
    for other in (first, third):
        assert isinstance(other, RunError) and str(other) == "process 1 failed: MemoryError('no room for image 4')"
    with pytest.raises(MemoryError):
        shared_out(ALONE, range(6), work)


@pytest.mark.parametrize(("images", "batch"), [(1, 16), (6, 4), (1024, 16), (50_000, 16), (50_000, 64), (50_000, 1500), (63_999, 3)])
def test_shards_are_whole_batches_and_cover_everything(images: int, batch: int) -> None:
    shards = shards_of(images, batch)
    assert [s.first for s in shards] == [0, *np.cumsum([s.count for s in shards[:-1]]).tolist()]
    assert sum(s.count for s in shards) == images
    assert all(s.first % batch == 0 and s.count <= max(1000, batch) for s in shards)


@pytest.mark.parametrize("count", [2, 3])
def test_a_shared_evaluation_is_that_of_one_process(heads: HeadsFiles, count: int) -> None:
    """Bit for bit: every column, the features, the protocol with the data's hash, the heads kept for pictures."""
    alone = evaluator(heads)(ball())
    shared, *others = together(count, lambda processes: evaluator(heads, processes)(ball()))
    assert others == [None] * (count - 1)
    assert isinstance(shared, Result) and alone is not None
    assert shared.protocol == alone.protocol
    assert shared.columns() == alone.columns() and len(shared.columns()) > 15
    for key in alone.columns():
        assert np.array_equal(shared.terms[key], alone.terms[key], equal_nan=True), key
    assert np.array_equal(shared.features, alone.features)
    assert all(np.array_equal(shared.inverted[name], array) for name, array in alone.inverted.items())


def test_the_share_that_is_done_is_told_to_its_end(heads: HeadsFiles) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    def report(part: str, done: int, total: int) -> None:
        told.setdefault(part, []).append((done, total))

    together(2, lambda processes: evaluator(heads, processes)(ball(), progress=report))
    assert told["images"][-1] == (11, 11) and told["real images"][-1] == (10, 10)
    assert all(done <= total for reports in told.values() for done, total in reports)


# ------------------------------------------------------------------------------------------------- features in files


class Counting(HeadsFeatures):
    """Knows how many images it has read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def __call__(self, image: Tensor) -> Tensor:
        self.read += len(image)
        return super().__call__(image)


def test_a_second_evaluation_does_not_read_the_real_images_again(
    heads: HeadsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = real_features(Dataset(heads.images), Counting(), cache=tmp_path)
    monkeypatch.setattr(Dataset, "batch", lambda *_: pytest.fail("an image was read"))
    extractor = Counting()
    again = real_features(Dataset(heads.images), extractor, cache=tmp_path)
    assert extractor.read == 0
    assert first.features is not None and again.features is not None
    assert torch.equal(again.features, first.features)
    assert again.data == first.data != ""
    assert len(list(tmp_path.iterdir())) == 1


def test_the_cache_belongs_to_images_labels_extractor_and_resolution(heads: HeadsFiles, tmp_path: Path) -> None:
    extractor, cache = Counting(), tmp_path / "cache"

    def reads(data: Dataset) -> int:
        extractor.read = 0
        real_features(data, extractor, cache=cache)
        return extractor.read

    assert reads(Dataset(heads.images)) == 10
    assert reads(Dataset(heads.images)) == 0
    assert reads(Dataset(heads.images, resolution=8)) == 10
    extractor.hash = "another"
    assert reads(Dataset(heads.images)) == 10
    relabelled = tmp_path / "relabelled.zip"
    with zipfile.ZipFile(heads.images) as old, zipfile.ZipFile(relabelled, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b"[[", b"[ [") if name == "dataset.json" else data)
    assert reads(Dataset(relabelled)) == 10
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(heads.images) as archive:
        archive.extractall(folder)
    assert reads(Dataset(folder)) == 10
    assert reads(Dataset(folder)) == 0
    image = sorted(folder.rglob("*.png"))[3]
    image.write_bytes(sorted(folder.rglob("*.png"))[4].read_bytes())
    assert reads(Dataset(folder)) == 10


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite(path: Path) -> None:
    path.write_bytes(b"no safetensors at all")


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short, overwrite])
def test_a_damaged_cache_is_said_and_made_anew(heads: HeadsFiles, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    whole = real_features(Dataset(heads.images), Counting(), cache=tmp_path)
    (path,) = tmp_path.iterdir()
    damage(path)
    said, extractor = list[str](), Counting()
    again = real_features(Dataset(heads.images), extractor, cache=tmp_path, say=said.append)
    assert extractor.read == 10 and again.features is not None and whole.features is not None
    assert torch.equal(again.features, whole.features)
    assert len(said) == 1 and str(path) in said[0] and "damaged" in said[0] and "computed anew" in said[0]
    extractor.read = 0
    real_features(Dataset(heads.images), extractor, cache=tmp_path)
    assert extractor.read == 0


def test_features_of_something_else_are_not_read(tmp_path: Path) -> None:
    write_features(tmp_path / "a.safetensors", torch.ones(2, 3), {"model": "a", "other": "x"})
    assert read_features(tmp_path / "a.safetensors", {"model": "b"}) is None
    assert read_features(tmp_path / "none.safetensors", {}) is None
    found = read_features(tmp_path / "a.safetensors", {"model": "a"})
    assert found is not None and found[1]["other"] == "x"


class Stopped(Exception):
    """Somebody pulled the plug."""


def test_an_evaluation_that_was_stopped_goes_on_where_it_was(heads: HeadsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, kept = Dataset(heads.images).labels, tmp_path / "unfinished"
    whole = generated_features(ball(), labels, HeadsFeatures(), PLAN)
    written: list[Path] = []
    write = generating.write_features

    def write_three(path: Path, *arguments: Any) -> None:
        if len(written) == 3:
            raise Stopped
        written.append(path)
        write(path, *arguments)

    monkeypatch.setattr(generating, "write_features", write_three)
    with pytest.raises(Stopped):
        generated_features(ball(), labels, HeadsFeatures(), PLAN, kept_in=kept)
    monkeypatch.setattr(generating, "write_features", write)
    flip_a_byte(kept / "000002.safetensors")
    extractor, said, done = Counting(), list[str](), list[int]()
    resumed = generated_features(ball(), labels, extractor, PLAN, kept_in=kept, say=said.append, progress=done.append)
    assert whole is not None and resumed is not None
    assert torch.equal(resumed, whole)
    assert extractor.read == 11 - 2 * 2  # images 0, 1 and 4, 5 were there
    assert len(said) == 1 and "000002.safetensors: damaged" in said[0]
    assert done[-1] == 11 and done == sorted(done)
    # What another model, another protocol or other processes left is judged by what it belongs to.
    other = generated_features(ball(0.27), labels, extractor, PLAN, kept_in=kept)
    assert other is not None and not torch.equal(other, whole) and extractor.read == 7 + 11
    generated_features(ball(0.27), labels, extractor, PLAN, kept_in=kept, belongs_to={"precision": "bf16-mixed"})
    assert extractor.read == 7 + 22
    shared = together(2, lambda p: generated_features(ball(0.27), labels, extractor, PLAN, kept_in=kept, belongs_to={}, processes=p))
    assert torch.equal(shared[0], other)


def test_what_was_kept_is_removed_with_the_result(heads: HeadsFiles, tmp_path: Path) -> None:
    target = tmp_path / "results" / "evaluation.json"
    result = evaluator(heads)(ball(), kept_in=unfinished_folder(target))
    assert len(list(unfinished_folder(target).iterdir())) == 6
    assert result is not None
    save_result(result, target)
    assert sorted(path.name for path in target.parent.iterdir()) == ["evaluation.json", "evaluation.npz"]


# ------------------------------------------------------------------------------------------------------------ precision


def test_precision_is_part_of_the_protocol_and_changes_the_images(heads: HeadsFiles) -> None:
    """The networks run in bfloat16, rendering does not; results of unequal precision are not compared."""
    half = PLAN.model_copy(update={"precision": "bf16-mixed"})
    seen: list[bool] = []

    class Watched(AnalyticSphere):
        def prepare(self, latents: Any, condition: Tensor | None, **options: Any) -> Any:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().prepare(latents, condition, **options)

    data = EvaluationData(Dataset(heads.images))
    full, rounded = (
        Evaluator(plan, data, segmenter=AnalyticColours(), estimator=None)(Watched(neural_resolution=16, image_resolution=16), subject=name)
        for name, plan in (("full", PLAN), ("rounded", half))
    )
    assert full is not None and rounded is not None
    assert sum(seen) == 6  # batches of images, of the second alone; shapes are measured in float32
    assert not np.array_equal(full.features, rounded.features)
    assert np.array_equal(full.terms["sr_skin"], rounded.terms["sr_skin"], equal_nan=True)
    with pytest.raises(PriorzooError, match=r'field `images\.precision` is "32-true" in full and "bf16-mixed" in rounded'):
        require_equal_protocols([full, rounded])


def test_float16_on_a_processor_is_refused(heads: HeadsFiles) -> None:
    with pytest.raises(PriorzooError, match=r"evaluation\.precision: 16-mixed needs a CUDA device"):
        evaluator(heads, plan=PLAN.model_copy(update={"precision": "16-mixed"}))(ball())


def test_a_training_with_tf32_does_not_change_how_its_result_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with generating.at_precision("32-true", torch.device("cpu")):
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_an_extractor_without_logits_reads_real_and_generated_images_alike() -> None:
    image = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    extractor: Extractor = HeadsFeatures()
    assert torch.equal(extractor(image), extractor.generated(image))
