"""A file is replaced as a whole or not at all, whatever breaks in between."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mocosfl.system.files import (
    replaced,
    replaced_file,
    whole_folder,
    write_atomically,
    write_new,
)

Fail = Callable[[Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "record.json"
    file.write_text("old")
    return file


def test_text_and_bytes_replace_what_is_there(path: Path):
    write_atomically(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(path.parent.iterdir()) == [path]


def test_folder_of_the_file_is_made(tmp_path: Path):
    write_atomically(tmp_path / "a" / "b" / "record.json", "new")
    assert (tmp_path / "a" / "b" / "record.json").read_text() == "new"


def _fail_in_the_file(path: Path) -> None:
    with replaced_file(path) as file:
        file.write(b"half")
        raise ValueError("refused")


def _fail_at_the_place(path: Path) -> None:
    with replaced(path) as place:
        place.write_text("half")
        raise ValueError("refused")


@pytest.mark.parametrize("fail", [_fail_in_the_file, _fail_at_the_place])
def test_exception_leaves_the_old_file_and_nothing_else(path: Path, fail: Fail):
    with pytest.raises(ValueError, match="refused"):
        fail(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_full_disk_at_the_sync_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_file_is_synced_before_it_takes_its_name(path: Path, monkeypatch: pytest.MonkeyPatch):
    seen, really = [], os.fsync

    def note(descriptor: int) -> None:
        seen.append((Path(f"/proc/self/fd/{descriptor}").resolve().name, path.read_text()))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_atomically(path, "new")
    assert seen == [(".record.json.partial", "old"), (path.parent.name, "new")]


def test_folder_that_cannot_be_synced_is_no_failure(path: Path, monkeypatch: pytest.MonkeyPatch):
    really = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(22, "Invalid argument")
        really(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_atomically(path, "new")
    assert path.read_text() == "new"


KILLED = """
import os, signal, sys
from pathlib import Path

from mocosfl.system.files import replaced_file, whole_folder

path = Path(sys.argv[1])
if path.is_file():
    with replaced_file(path) as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
with whole_folder(path) as folder:
    (folder / "a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _kill_while_writing(path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL


def test_kill_leaves_the_old_file_and_the_next_write_nothing_partial(path: Path):
    _kill_while_writing(path)
    assert path.read_text() == "old"
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_killed_folder_is_not_there(tmp_path: Path):
    _kill_while_writing(tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_folder_is_there_whole_with_its_mode(tmp_path: Path):
    with whole_folder(tmp_path / "key", mode=0o700) as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "key").exists()
    assert (tmp_path / "key" / "a").read_text() == "1"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == [tmp_path / "key"]


def test_folder_that_another_process_has_filled_stays(tmp_path: Path):
    with pytest.raises(OSError, match="images"), whole_folder(tmp_path / "images") as folder:
        (folder / "a").write_text("ours")
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a").write_text("theirs")
    assert (tmp_path / "images" / "a").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [tmp_path / "images"]


def test_new_file_has_its_mode_and_is_on_the_disk_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced, really = [], os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        really(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    key = tmp_path / "key.pem"
    write_new(key, b"secret", mode=0o600)
    assert key.read_bytes() == b"secret" and key.stat().st_mode & 0o777 == 0o600
    assert synced == [key, tmp_path]


def test_new_file_never_takes_the_place_of_another(path: Path):
    with pytest.raises(FileExistsError):
        write_new(path, b"new", mode=0o644)
    assert path.read_text() == "old"
