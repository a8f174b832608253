"""A file is the old one or the new one, whatever happens, and nothing else is left."""

import os
import stat
from pathlib import Path

import pytest

from seqvae.disk import write_atomic


@pytest.mark.parametrize("breaks", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_breaks_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str, fault: BaseException
) -> None:
    def broken(*_: object) -> None:
        raise fault

    write_atomic(tmp_path / "file", b"old")
    monkeypatch.setattr(os, breaks, broken)
    with pytest.raises(type(fault)) as caught:
        write_atomic(tmp_path / "file", b"new")
    assert caught.value is fault
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_the_data_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power failure may leave an empty file in place of the old one."""
    done: list[object] = []
    sync, move = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.fstat(file).st_size) or sync(file))
    monkeypatch.setattr(os, "replace", lambda old, new: done.append(str(new)) or move(old, new))
    write_atomic(tmp_path / "file", b"data")
    assert done == [4, str(tmp_path / "file")]


def test_modes_are_what_the_user_asks_for(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["missing/file", "file/file", "folder"])
def test_a_place_that_cannot_be_written_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / name, b"data")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
