"""What ends a run early: a full disk, a request to stop. The last checkpoint survives, and the message says what can go on."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from priorzoo.core.errors import CheckpointError, RunError, StoppedError
from priorzoo.core.recipe import Recipe, load_recipe
from priorzoo.data.heads import write_heads
from priorzoo.training import checkpoints
from priorzoo.training.checkpoints import checkpoint_folders, read_checkpoint
from priorzoo.training.trainer import Trainer, train
from processes_driver import python
from safetensors import SafetensorError

RECIPE = """
seed: 5
backbone: {name: analytic_sphere}
data: {name: eg3d, path: heads.zip}
training: {images: 32, batch: 4, micro_batch: 2, checkpoint: {every: 8, keep: 2}, log_every: 4, samples: null, threads: 1}
"""
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("stopping")
    write_heads(folder / "heads.zip", images=6, resolution=16, held_out=0, supersample=1)
    (folder / "ball.yaml").write_text(RECIPE)
    return load_recipe(str(folder / "ball.yaml"))


def fails_after(calls: int, error: Exception, plain: Callable[..., object]) -> Callable[..., object]:
    """Work ``calls`` times, then raise."""
    left = [calls]

    def work(*given: object, **options: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return plain(*given, **options)

    return work


# Where the disk is full when the third checkpoint is written: in either tensors' file, in the state, at the move, at the flush.
MOMENTS = {
    "weights": (checkpoints, "save_file", 4, SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")),
    "optimisers": (checkpoints, "save_file", 5, FULL),
    "state": (checkpoints, "write_state", 2, FULL),
    "flush": (checkpoints, "_to_disk", 10, FULL),
    "move": (checkpoints.os, "replace", None, FULL),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_full_disk_leaves_the_earlier_checkpoints(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    owner, name, calls, error = MOMENTS[moment]
    plain = getattr(owner, name)
    if calls is None:  # other files are moved too: only the third checkpoint's move fails

        def replaced(source: Path, target: Path) -> None:
            if Path(target).name == "000000024":
                raise error
            plain(source, target)

        monkeypatch.setattr(owner, name, replaced)
    else:
        monkeypatch.setattr(owner, name, fails_after(calls, error, plain))
    folder = tmp_path / "run"
    with pytest.raises(CheckpointError) as caught:
        train(recipe, folder, progress=False)
    text = str(caught.value)
    assert str(folder / "checkpoints" / "000000024") in text and "No space left on device" in text
    assert "are free" in text and "000000008 and 000000016 remain" in text
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [p.name for p in checkpoint_folders(folder)]
    monkeypatch.undo()
    assert read_checkpoint(checkpoint_folders(folder)[-1]).state["images"] == 16
    assert train(recipe, folder, resume=True, progress=False).images == 32


def test_a_checkpoint_written_again_keeps_the_old_one_until_it_is_there(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    train(recipe, folder, progress=False)
    last = checkpoint_folders(folder)[-1]
    again = read_checkpoint(last)
    plain = os.replace

    def replaced(source: Path, target: Path) -> None:
        if Path(target) == last and ".partial" in str(source) and "former" not in str(source):
            raise FULL
        plain(source, target)

    monkeypatch.setattr(checkpoints.os, "replace", replaced)
    with pytest.raises(CheckpointError, match="000000024 and 000000032 remain"):
        checkpoints.write_checkpoint(folder, last.name, again, keep=2)
    assert read_checkpoint(last).state == again.state
    monkeypatch.undo()
    assert checkpoints.write_checkpoint(folder, last.name, again, keep=2) == last
    assert [p.name for p in (folder / "checkpoints").iterdir() if p.name.startswith(".")] == []


def test_a_disk_too_full_for_the_log_is_no_traceback(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from priorzoo.training.journal import Journal

    monkeypatch.setattr(Journal, "write", fails_after(2, FULL, Journal.write))
    with pytest.raises(RunError, match=r"run: cannot be written to: .*No space left on device; the newest checkpoint is 000000008"):
        train(recipe, tmp_path / "run", progress=False)


def test_sigterm_ends_the_step_writes_a_checkpoint_and_says_so(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, before = Trainer.train_step, signal.getsignal(signal.SIGTERM)

    def step(self: Trainer) -> None:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(self)

    monkeypatch.setattr(Trainer, "train_step", step)
    folder = tmp_path / "run"
    with pytest.raises(StoppedError, match=r"asked to stop \(SIGTERM\) after 12 of 32 images; a checkpoint .* --resume continues"):
        train(recipe, folder, progress=False)
    assert signal.getsignal(signal.SIGTERM) is before
    assert [p.name for p in checkpoint_folders(folder)] == ["000000008", "000000012"]
    assert json.loads((folder / "run.json").read_text())["status"] == "stopped"
    monkeypatch.undo()
    train(recipe, folder, resume=True, progress=False)
    train(recipe, tmp_path / "whole", progress=False)
    ends = [read_checkpoint(checkpoint_folders(f)[-1]).model for f in (folder, tmp_path / "whole")]
    assert all(bool((ends[0][k] == ends[1][k]).all()) for k in ends[0])


DRIVER = """
import os, signal, sys
import analytic
from priorzoo.cli.main import main
from priorzoo.training.trainer import Trainer

plain = Trainer.train_step
def step(self):
    # The second process alone is asked; both have to stop.
    if self.step == 2 and self.fabric.global_rank == self.fabric.world_size - 1:
        os.kill(os.getpid(), signal.SIGTERM)
    plain(self)
Trainer.train_step = step
sys.exit(main(sys.argv[1:]))
"""


def test_the_command_ends_with_its_own_exit_code_on_every_process(recipe: Recipe, tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    folder = tmp_path / "run"
    done = python(str(driver), "train", recipe.source, "training.devices=2", "training.accelerator=cpu", "--out", str(folder), code=143)
    assert "stopped: " in done.stderr and "after 12 of 32 images" in done.stderr and "Traceback" not in done.stderr
    assert checkpoint_folders(folder)[-1].name == "000000012"


def test_a_disk_full_on_the_first_process_does_not_leave_the_second_waiting(recipe: Recipe, tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import analytic, sys\nfrom priorzoo.cli.main import main\nfrom priorzoo.training import checkpoints\n"
        "def full(*_, **__): raise OSError(28, 'No space left on device')\n"
        "checkpoints.save_file = full\nsys.exit(main(sys.argv[1:]))\n"
    )
    command = ["train", recipe.source, "training.devices=2", "training.accelerator=cpu", "--out", str(tmp_path / "run")]
    done = python(str(driver), *command, code=2)
    assert "No space left on device" in done.stderr and "no checkpoint remains" in done.stderr and "Traceback" not in done.stderr
