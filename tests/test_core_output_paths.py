"""Where files cannot be written: the reason is said, before the work where it can be known."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from priorzoo.core.errors import OutputError
from priorzoo.core.files import write_atomically, write_text_atomically
from priorzoo.core.output_paths import require_free, require_writable


def test_where_a_file_cannot_be_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_text("a file")
    for place, reason in (
        ("a.png/q.png", r"a\.png/q\.png: cannot be written: .*/a\.png is a file, not a folder"),
        ("/proc/x/b.png", "/proc/x/b.png: cannot be written: "),
        ("n" * 300, "File name too long"),
    ):  # fmt: skip
        with pytest.raises(OutputError, match=reason):
            require_writable(place)
        with pytest.raises(OutputError, match=reason):
            write_text_atomically(place, "x")
    with pytest.raises(OutputError, match=f"{tmp_path} is a folder"):
        require_writable(tmp_path)
    require_writable("new/deep/b.png")
    require_free(["new.txt", "a.png"], True)
    with pytest.raises(OutputError, match=r"a\.png: exists already; --force replaces it"):
        require_free(["new.txt", "a.png"], False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"], "nothing is made by asking"


def test_a_disk_that_is_full_is_the_targets_trouble_and_others_are_not(tmp_path: Path) -> None:
    full, gone = OSError(errno.ENOSPC, "No space left on device"), FileNotFoundError(errno.ENOENT, "gone", "x")
    for error, kind in ((full, OutputError), (gone, FileNotFoundError)):
        with pytest.raises(kind) as told, write_atomically(tmp_path / "a.txt"):
            raise error
        assert (str(told.value) == f"{tmp_path / 'a.txt'}: cannot be written: No space left on device") == (kind is OutputError)
    assert list(tmp_path.iterdir()) == [] and issubclass(OutputError, OSError)
