"""Buckets as fsspec has them, here one in memory: what is there is listed, read and written; what is not is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from command import run

from videochat_flash import bucket as buckets
from videochat_flash.bucket import below, fetched, is_url, put, remove

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket() -> Iterator[str]:
    yield "memory://store"
    fsspec.filesystem("memory").rm("/store", recursive=True)


def test_files_are_put_listed_and_fetched(bucket: str, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for name in ("b/two.txt", "one.txt"):
        file.write_text(name)
        put(file, f"{bucket}/{name}")
    found = below(bucket)
    assert [(one.url.rpartition("store/")[2], one.size) for one in found] == [("b/two.txt", 9), ("one.txt", 7)]
    assert below(found[1].url) == [found[1]]
    with fetched(found[1].url) as local:
        assert (local.name, local.read_text()) == ("one.txt", "one.txt")
    assert not local.exists()
    with fetched(bucket) as local:
        assert sorted(one.name for one in local.rglob("*.txt")) == ["one.txt", "two.txt"]
    file.write_text("another")
    put(file, f"{bucket}/one.txt")
    assert below(bucket)[1].mark != found[1].mark and below(bucket)[0] == found[0]


def test_a_local_path_is_itself(tmp_path: Path) -> None:
    assert not is_url(str(tmp_path)) and is_url("s3://films/a.mp4")
    with fetched(str(tmp_path)) as local:
        assert local == tmp_path
    assert tmp_path.exists()


def test_what_is_not_there_is_told(bucket: str, tmp_path: Path) -> None:
    put(Path(__file__), f"{bucket}/one.txt")
    with pytest.raises(FileNotFoundError, match="there is nothing at memory://store/none"):
        below(f"{bucket}/none")
    with pytest.raises(FileNotFoundError), fetched(f"{bucket}/none.mp4"):
        pass
    with pytest.raises(ValueError, match="nowhere://films: Protocol not known"):
        below("nowhere://films")


def test_without_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ValueError, match="memory://store: fsspec is not installed: pip install fsspec"):
        below("memory://store")


def test_a_bucket_that_one_has_no_access_to(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As s3fs tells it, whose errors are no OSErrors."""

    class NoCredentials(Exception):
        pass

    def closed(*_: object, **__: object) -> None:
        raise NoCredentials("Unable to locate credentials")

    driver = ModuleType("botocore.exceptions")
    driver.__dict__["BotoCoreError"] = NoCredentials
    monkeypatch.setitem(sys.modules, driver.__name__, driver)
    put(Path(__file__), f"{bucket}/a.mp4")
    said = f"{bucket}/a.mp4 cannot be reached: Unable to locate credentials"
    memory = type(fsspec.filesystem("memory"))
    for name in ("find", "isdir", "makedirs", "rm_file"):
        monkeypatch.setattr(memory, name, closed)
    with pytest.raises(OSError, match=said):
        below(f"{bucket}/a.mp4")
    with pytest.raises(OSError, match=said), fetched(f"{bucket}/a.mp4"):
        pass
    with pytest.raises(OSError, match=said):
        put(Path(__file__), f"{bucket}/a.mp4")
    with pytest.raises(OSError, match=said):
        remove(f"{bucket}/a.mp4")
    done = run(capsys, "longvid", "scan", "--videos", f"{bucket}/a.mp4", "--out", tmp_path / "out")
    assert (done.code, done.lines) == (1, [f"vcflash: {said}"])
    monkeypatch.undo()  # the bucket is emptied behind this


def test_what_is_done_with_a_file_that_was_fetched_is_no_fault_of_the_bucket(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(Path(__file__), f"{bucket}/a.mp4")
    monkeypatch.setattr(buckets, "_foreign", lambda: (ZeroDivisionError,))
    with pytest.raises(ZeroDivisionError), fetched(f"{bucket}/a.mp4"):
        raise ZeroDivisionError


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_file_takes_its_place_whole_or_not_at_all(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "set" / "train.jsonl"
    put(Path(__file__), f"{scheme}{there}")
    whole = there.read_bytes()
    assert whole == Path(__file__).read_bytes()

    def full(_: object, part: str | Path) -> None:
        Path(part).write_text("half of")
        raise OSError(28, "No space left on device")

    for place in ("shutil.copyfile", "shutil.copyfileobj"):
        monkeypatch.setattr(place, full)
    with pytest.raises(OSError, match="No space left"):
        put(Path(__file__), f"{scheme}{there}")
    assert there.read_bytes() == whole and list(there.parent.iterdir()) == [there]


def test_a_file_is_removed_and_no_other(bucket: str, tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        put(Path(__file__), f"{bucket}/{name}")
        put(Path(__file__), str(tmp_path / name))
    for folder in (bucket, str(tmp_path)):
        [one, _] = below(folder)
        remove(one.url)
        assert [each.url.rpartition("/")[2] for each in below(folder)] == ["two.txt"]
    with pytest.raises(FileNotFoundError):
        remove(f"{bucket}/one.txt")
