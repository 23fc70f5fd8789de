"""Files are written whole or not at all, and known by their digest."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from priorzoo.core.files import file_digest, write_atomically, write_text_atomically


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "kept.json"
    write_text_atomically(target, "old")
    with pytest.raises(RuntimeError, match="half way"), write_atomically(target) as beside:
        beside.write_text("new, cut sh")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]


def test_a_failure_leaves_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_atomically(tmp_path / "new.txt") as beside:
        beside.write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text_atomically(target, "old")
    with write_atomically(target) as beside:
        beside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_beside_keeps_the_suffix_and_the_folder(tmp_path: Path) -> None:
    with write_atomically(tmp_path / "deep" / "picture.png") as beside:
        assert beside.suffix == ".png" and beside.parent == tmp_path / "deep"
        beside.write_bytes(b"\x89PNG")
    assert (tmp_path / "deep" / "picture.png").read_bytes() == b"\x89PNG"


def test_permissions_are_the_ordinary_ones(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text_atomically(tmp_path / "a.txt", "x")
        assert os.umask(0o027) == 0o027  # reading the umask has put it back
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a.txt", "é λ")
    assert (tmp_path / "a.txt").read_bytes() == "é λ".encode()


@pytest.mark.parametrize("size", [0, 2**20, 2**21 + 3])
def test_a_digest_is_that_of_the_whole_content(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(content[:size])
    assert file_digest(tmp_path / "a") == hashlib.sha256(content[:size]).hexdigest()
