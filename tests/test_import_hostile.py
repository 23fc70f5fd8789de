"""Hostile checkpoints are refused, each for its own reason, at once, in little memory, and without running anything."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile.corpus import CASES, OPCODES, SYSTEM, changed, opcodes, tensor
from priorzoo.backbones.eg3d.importing import ALLOWED, read_official
from priorzoo.core.errors import PriorzooError
from priorzoo.core.pickles import Limits, PickleError, read_pickle

SECONDS, MEGABYTES = 1.0, 200

# Reads every file of a folder in one process after a first one that is sound, so that everything is imported by then. Audit events tell
# what a reader must never cause; the largest memory is that beyond the start.
WATCHED = """
import json, os, resource, sys, time
from pathlib import Path
from priorzoo.backbones.eg3d.importing import read_official
from priorzoo.core.errors import CheckpointError

folder = Path(sys.argv[1])
read_official(folder / "sound.pkl")
try:
    read_official(folder / "absent.pkl")
except CheckpointError:
    pass
events = []
watching = False
forbidden = ("import", "exec", "compile", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.")
def hook(event, arguments):
    if watching and (event.startswith(forbidden) or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))):
        events.append(f"{event} {arguments[0]!r:.60}")
sys.addaudithook(hook)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = {}
for path in sorted(folder.glob("*.hostile")):
    events.clear()
    begin, watching = time.process_time(), True
    try:
        read_official(path)
        reason = "read"
    except CheckpointError as error:
        reason = str(error)
    watching = False
    found[path.stem] = {"seconds": time.process_time() - begin, "reason": reason, "events": list(events)}
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"found": found, "megabytes": grown}))
"""


def test_the_corpus_is_as_large_as_it_says():
    assert len(OPCODES) >= 10
    assert len(CASES) >= 30
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "kind",
    [
        "a (dict|list|object) .*(itself|own)", "BUILD on a tensor", "EXT[124]", "(PERSID|BINPERSID)", "huge LONG", "huge BINBYTES",
        "a nested storage", "a number type|an array's objects", "more elements (described )?than", "a stride beyond the storage",
        "truncated",
    ],
)  # fmt: skip
def test_every_kind_of_attack_is_in_the_corpus(kind: str):
    assert [case.name for case in CASES if re.match(kind, case.name)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of its own tells that reads the whole corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "sound.pkl").write_bytes(changed(lambda c: None))
    for number, case in enumerate(CASES):
        (folder / f"{number}.hostile").write_bytes(case.make())
    done = subprocess.run([sys.executable, "-c", WATCHED, str(folder)], capture_output=True, text=True, cwd=folder, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert not (folder / "hostile_was_here").exists()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_it_is_refused_for_its_own_reason_at_once_and_runs_nothing(number: int, told: dict[str, Any]):
    case, found = CASES[number], told["found"][str(number)]
    assert re.search(case.reason, found["reason"])
    assert f"{number}.hostile: " in found["reason"]
    assert found["reason"].replace("\n", "").isprintable()
    assert len(found["reason"]) < 1000
    assert found["seconds"] < SECONDS
    assert found["events"] == []


def test_the_whole_corpus_takes_little_memory(told: dict[str, Any]):
    assert len(told["found"]) == len(CASES)
    assert told["megabytes"] < MEGABYTES


def test_the_place_is_the_byte_of_the_culprit(tmp_path: Path):
    path = tmp_path / "x.pkl"
    sound = b"\x80\x04}\x94(\x8c\x01a"
    path.write_bytes(sound + b"\x82\x01u.")
    with pytest.raises(PickleError) as refused:
        read_pickle(path, ALLOWED)
    assert refused.value.offset == len(sound)


def test_the_place_inside_a_nested_storage_is_that_of_the_file(tmp_path: Path):
    data = tensor(opcodes(SYSTEM, protocol=4))
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(PickleError) as refused:
        read_pickle(path, ALLOWED)
    assert refused.value.offset == data.index(SYSTEM) + len(SYSTEM) - 1


def test_a_file_beyond_the_limit_is_not_opened_further(tmp_path: Path):
    path = tmp_path / "huge.pkl"
    with open(path, "wb") as file:
        file.truncate(9 << 30)  # a hole: no disk is used
    with pytest.raises(PickleError, match=f"oversized: {9 << 30} bytes, at most {Limits().file_bytes}"):
        read_pickle(path, ALLOWED)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_ends(share: float, tmp_path: Path):
    data = changed(lambda c: None)
    path = tmp_path / "short.pkl"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PickleError, match="truncated"):
        read_pickle(path, ALLOWED)


def test_damaged_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path):
    data, path = changed(lambda c: None), tmp_path / "damaged.pkl"
    generator = random.Random(7)
    refused = 0
    for _ in range(100):
        damaged = bytearray(data)
        place = generator.randrange(len(damaged))
        damaged[place : place + generator.randrange(3)] = bytes(generator.randrange(256) for _ in range(generator.randrange(3)))
        path.write_bytes(damaged)
        try:
            read_official(path)
        except PriorzooError:
            refused += 1
    assert refused > 20
