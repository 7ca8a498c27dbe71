"""Untrusted videos, read by a process that may do nothing else: what comes out is right, and nothing else gets out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from serving import alive
from videos import cut, damage, make, numbered, sound_only

from videochat_flash.serve import sandbox
from videochat_flash.serve.limits import Limits
from videochat_flash.serve.refuse import Refused
from videochat_flash.serve.sandbox import Reading
from videochat_flash.video import Frames, Sampling, decode, plan, probe

pytestmark = pytest.mark.usefixtures("unchecked")
SIZE = 32


@contextmanager
def reading(
    path: Path, kind: Literal["video", "image"] = "video", sampling: Sampling | None = None, **limits: int
) -> Iterator[Reading]:
    chosen = None if kind == "image" else sampling or Sampling()
    made = Reading(path, kind, chosen, SIZE, Limits(**limits), lambda: None)
    try:
        yield made
    finally:
        made.close()
    assert not Path(f"/proc/{made.pid}").exists()


def read(path: Path, *how: Any, **limits: Any) -> list[Frames]:
    with reading(path, *how, **limits) as made:
        return list(iter(made.take, None))


def refused(path: Path, *how: Any, **limits: Any) -> str:
    with pytest.raises(Refused) as told:
        read(path, *how, **limits)
    return told.value.code


def test_frames_are_those_that_are_read_without_a_sandbox(tmp_path: Path) -> None:
    path, sampling = make(tmp_path / "a.mp4", 100, rotation=90), Sampling("fps", fps=10.0)
    found = read(path, "video", sampling)
    info = probe(path)
    wanted = plan(info, sampling)
    (whole,) = decode(info, wanted, SIZE, chunk=1000)
    assert [len(one.seconds) for one in found[:-1]] == [16] * (len(found) - 1)
    assert np.array_equal(np.concatenate([one.pixels for one in found]), whole.pixels)
    assert np.array_equal(np.concatenate([one.seconds for one in found]), whole.seconds)


def test_a_picture_is_one_frame_whatever_it_is_called(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "BMP", "WEBP", "GIF"):
        with (tmp_path / "0.png").open("wb") as file:
            Image.fromarray(numbered(5)).save(file, kind)
        (found,) = read(tmp_path / "0.png", "image")
        assert found.pixels.shape == (1, SIZE, SIZE, 3)


@pytest.mark.parametrize("make_it", [sound_only, lambda path: _text(path, b""), lambda path: _text(path, b"#EXTM3U\n")])
def test_what_is_no_video_is_undecodable(tmp_path: Path, make_it: Any) -> None:
    assert refused(make_it(tmp_path / "a.mp4")) == "undecodable"


def _text(path: Path, words: bytes) -> Path:
    path.write_bytes(words)
    return path


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    secret = make(tmp_path / "secret.mp4", 8)
    for words in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {secret}\n",
        f"concat:{secret}",
        f"v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\ns={secret}\n",
    ):
        assert refused(_text(tmp_path / "0.video", words.encode())) == "undecodable"


def test_a_cut_and_a_damaged_video_give_what_is_sound_or_a_refusal(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.mkv", 64)
    assert sum(len(one.seconds) for one in read(cut(whole, 0.7))) > 0
    assert sum(len(one.seconds) for one in read(damage(whole, 0.4, 0.5))) > 0
    assert refused(cut(make(tmp_path / "b.mp4", 64), 0.5)) == "undecodable"  # its index is at the end


def test_pictures_are_told_from_videos_by_what_is_in_them(tmp_path: Path) -> None:
    Image.fromarray(numbered(5)).save(tmp_path / "0.video", "PNG")
    assert refused(tmp_path / "0.video") == "undecodable"
    assert refused(make(tmp_path / "a.mp4", 8).rename(tmp_path / "0.png"), "image") == "undecodable"
    Image.fromarray(numbered(5)).save(tmp_path / "1.png", "PPM")
    assert refused(tmp_path / "1.png", "image") == "undecodable"  # a format that is not among the few


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"video_seconds": 1}, "video_too_long"),
        ({"video_frames": 49}, "video_too_long"),
        ({"frame_pixels": 48 * 64 - 1}, "video_too_large"),
        ({"pixels": 48 * 64 * 48 - 1}, "video_too_large"),
        ({"decode_bytes": 64 << 20}, "undecodable"),
    ],
)
def test_every_limit_holds(tmp_path: Path, limits: dict[str, int], code: str) -> None:
    path = make(tmp_path / "a.mp4", 50, 25)
    assert refused(path, "video", Sampling(), **limits) == code


def test_large_pictures_are_refused_by_their_header(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "0.png")  # 11 KB that would be 243 MB
    assert refused(tmp_path / "0.png", "image") == "video_too_large"


def test_a_window_outside_the_video_is_told(tmp_path: Path) -> None:
    assert refused(make(tmp_path / "a.mp4", 50), "video", Sampling(start=50.0)) == "bad_window"


def test_a_killed_process_is_a_refusal(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", (numbered(i % 4096) for i in range(3000)), gop=1)
    with reading(path, "video", Sampling("count", max_frames=3000, num_frames=3000)) as made:
        assert made.take() is not None
        os.kill(made.pid, signal.SIGKILL)
        with pytest.raises(Refused) as told:
            while made.take():
                pass
    assert told.value.code == "undecodable"


def test_a_process_that_says_nothing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "START", "import time; time.sleep(600)")
    assert refused(tmp_path / "a.mp4", decode_seconds=1) == "undecodable"


def test_a_process_that_ends_its_speech_but_not_itself_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "START", "import os, time; os.close(1); time.sleep(600)")
    assert refused(tmp_path / "a.mp4") == "undecodable"


def words(head: object) -> bytes:
    line = json.dumps(head).encode()
    return len(line).to_bytes(4, "big") + line


HEAD = {"total": 4, "duration": 1.0, "source": "a"}


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff\xff\xff\xff",
        b"\0\0\0\1x",
        words([]),
        words({"refused": "whatever"}),
        words({"end": True}),
        words(HEAD | {"total": 10**9}),
        words(HEAD | {"duration": float("nan")}),
        words(HEAD) + words({"end": True}),
        words(HEAD) + words({"frames": 17}),
        words(HEAD) + words({"frames": -1}),
        words(HEAD)
        + words({"frames": 4})
        + np.full(4, np.nan).tobytes()
        + bytes(4 * SIZE * SIZE * 3)
        + words({"end": True}),
        words(HEAD) + words({"frames": 4}) + b"short",
    ],
)
def test_what_the_process_says_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(sandbox, "START", f"import sys; sys.stdin.read(); sys.stdout.buffer.write({said!r})")
    assert refused(tmp_path / "a.mp4") == "undecodable"


def test_the_process_is_confined_and_knows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCF_API_KEY", "secret" * 5)
    path = make(tmp_path / "a.mp4", (numbered(i % 4096) for i in range(3000)), gop=1)
    with reading(path, "video", Sampling("count", max_frames=3000, num_frames=3000)) as made:
        assert made.take() is not None
        process = Path(f"/proc/{made.pid}")
        caps = {line[:25].strip(): line[25:].split()[:2] for line in (process / "limits").read_text().splitlines()}
        assert b"secret" not in (process / "environ").read_bytes()
        assert (
            b"secret" not in (process / "cmdline").read_bytes()
            and str(path).encode() not in (process / "cmdline").read_bytes()
        )
    limits = Limits()
    assert caps["Max address space"] == [str(limits.decode_bytes)] * 2
    assert caps["Max file size"] == caps["Max core file size"] == ["0", "0"]
    assert caps["Max open files"] == ["64", "64"]
    assert caps["Max cpu time"] == [str(4 * limits.decode_deadline_most)] * 2


def test_the_process_has_no_network_where_the_system_allows_that(tmp_path: Path) -> None:
    made = make(tmp_path / "a.mp4", (numbered(i % 4096) for i in range(3000)), gop=1)
    trial = "import ctypes, os; ctypes.CDLL(None).unshare(0x50000000); print(os.readlink('/proc/self/ns/net'))"
    done = subprocess.run([sys.executable, "-c", trial], capture_output=True, text=True, check=True)
    own = os.readlink("/proc/self/ns/net")
    if done.stdout.strip() == own:
        pytest.skip("this system lets no process give up its network")
    with reading(made, "video", Sampling("count", max_frames=3000, num_frames=3000)) as process:
        assert process.take() is not None
        assert os.readlink(f"/proc/{process.pid}/ns/net") != own
        routes = Path(f"/proc/{process.pid}/net/route").read_text().splitlines()
    assert len(routes) <= 1  # the head of an empty table


def test_a_system_that_confines_less_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.mp4", 12)
    (whole,) = read(path)
    start = (
        *(sandbox.START.splitlines()[0], "import os", "from videochat_flash.serve import decoder"),
        "decoder.ctypes.CDLL = lambda name: None",  # as macOS, which has neither of these
        "del os.sched_getaffinity, os.sched_setaffinity",
        "decoder.main()",
    )
    monkeypatch.setattr(sandbox, "START", "\n".join(start))
    (again,) = read(path)
    assert np.array_equal(whole.pixels, again.pixels) and np.array_equal(whole.seconds, again.seconds)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 20)
    read(path)
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        read(path)
        with reading(path):
            pass
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_a_process_whose_server_is_gone_ends(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", (numbered(i % 4096) for i in range(3000)), gop=1)
    parent = f"""
import os
from pathlib import Path
from videochat_flash.serve.limits import Limits
from videochat_flash.serve.sandbox import Reading
from videochat_flash.video import Sampling
sampling = Sampling("count", max_frames=3000, num_frames=3000)
made = Reading(Path({str(path)!r}), "video", sampling, 32, Limits(), lambda: None)
made.take()
print(made.pid, flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True, timeout=600)
    end = time.monotonic() + 600
    while alive(int(done.stdout)):
        assert time.monotonic() < end
        time.sleep(0.05)
