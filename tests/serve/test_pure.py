"""Requests as they are read, shelves, forms, keys: everything that needs no server."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash.serve.app import Stream
from videochat_flash.serve.guard import ANYONE, Keys, is_loopback, read_keys
from videochat_flash.serve.limits import Limits, with_changes
from videochat_flash.serve.media import write_data
from videochat_flash.serve.refuse import REASONS, Refused
from videochat_flash.serve.run import Short
from videochat_flash.serve.shelf import Shelf, sweep
from videochat_flash.serve.uploads import Uploads
from videochat_flash.serve.wire import Ask, understand
from videochat_flash.video import MOST_FRAMES, Sampling

pytestmark = pytest.mark.usefixtures("unchecked")
LIMITS = Limits(turns=6, parts=4, media=3, question_characters=100, text_characters=150, frames=64, output_tokens=50)
VIDEO = {"type": "video_url", "video_url": {"url": "a.mp4"}}
PICTURE = {"type": "image_url", "image_url": {"url": "a.png"}}


def text(words: str = "What?") -> dict[str, str]:
    return {"type": "text", "text": words}


def read(content: object = "What?", **more: Any) -> Ask:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **more}
    return understand(json.dumps(body).encode(), LIMITS, ["m"])


def refused(content: object = "What?", **more: Any) -> tuple[str, str | None]:
    with pytest.raises(Refused) as told:
        read(content, **more)
    return told.value.code, told.value.field


def samplings(content: object, **more: Any) -> list[Sampling | None]:
    return [one.sampling for one in read(content, **more).media]


# Requests.


def test_turns_of_one_side_are_joined_and_the_system_speaks_first() -> None:
    said = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [text("One?"), VIDEO, text("Two?")]},
        {"role": "assistant", "content": "Yes.", "refusal": None, "tool_calls": None},
        {"role": "user", "content": "Three?"},
        {"role": "user", "content": "Four?"},
    ]
    ask = read(messages=said)
    assert ask.turns == (("user", "Be short.\nOne?\nTwo?"), ("assistant", "Yes."), ("user", "Three?\nFour?"))


def test_frames_are_chosen_by_the_part_then_by_the_request_and_videos_share_them() -> None:
    assert samplings([VIDEO, text()]) == [Sampling(max_frames=64)]
    assert samplings([VIDEO, VIDEO, PICTURE, text()])[:2] == [Sampling(max_frames=28)] * 2
    assert samplings([VIDEO | {"fps": 2, "video_start": 1, "video_end": 9.5}, text()]) == [
        Sampling("fps", 64, fps=2.0, start=1.0, end=9.5)
    ]
    assert samplings([VIDEO | {"num_frames": 8, "max_frames": 16}, text()]) == [Sampling("count", 16, num_frames=8)]
    both = {"mm_processor_kwargs": {"fps": 1.0, "num_frames": 12}}
    assert samplings([VIDEO, text()], **both) == [Sampling("count", 64, num_frames=12)]
    assert samplings([VIDEO | {"fps": 3.0}, text()], **both) == [Sampling("fps", 64, fps=3.0)]
    assert samplings([PICTURE, text()]) == [None]


@pytest.mark.parametrize(
    ("content", "more", "expected"),
    [
        ([VIDEO | {"nframes": 65}, text()], {}, ("too_many_frames", "nframes")),
        ([VIDEO | {"max_frames": 1000}, text()], {}, ("too_many_frames", "max_frames")),
        ([VIDEO, VIDEO | {"nframes": 33}, text()], {}, ("too_many_frames", "nframes")),
        ([VIDEO, text()], {"mm_processor_kwargs": {"num_frames": 10**12}}, ("too_many_frames", "nframes")),
        ([VIDEO | {"nframes": 10**30}, text()], {}, ("too_many_frames", "nframes")),
        ([VIDEO | {"fps": 1e9}, text()], {}, ("invalid", "messages.0.content.1.video_url.fps")),
        ([VIDEO | {"fps": 0}, text()], {}, ("invalid", None)),
        ([VIDEO | {"video_start": 5, "video_end": 4}, text()], {}, ("invalid", "video_end")),
        ([VIDEO | {"min_pixels": 10**12}, text()], {}, ("invalid", None)),
        ([VIDEO | {"video_url": None}, text()], {}, ("invalid", "video_url")),
        ([VIDEO] * 4, {}, ("too_many_media", "messages")),
        ([text()] * 5, {}, ("too_many_parts", "messages")),
        ("x" * 101, {}, ("text_too_long", "messages")),
        ([text("x" * 60)] * 2, {}, ("text_too_long", "messages")),
        ("", {}, ("empty_question", "messages")),
        ([VIDEO], {}, ("empty_question", "messages")),
        (" \n", {}, ("empty_question", "messages")),
        ("What?", {"max_tokens": 51}, ("too_many_tokens", "max_tokens")),
        ("What?", {"max_completion_tokens": 51}, ("too_many_tokens", "max_tokens")),
        ("What?", {"max_tokens": 0}, ("invalid", "max_tokens")),
        ("What?", {"n": 2}, ("invalid", "n")),
        ("What?", {"temperature": -1}, ("invalid", "temperature")),
        ("What?", {"model": "other"}, ("no_model", "model")),
        ("What?", {"keep": "1:2:3"}, ("invalid", "keep")),
        ("What?", {"stop": ["x"] * 9}, ("invalid", None)),
        ("What?", {"chat_template": "{{ 1 }}"}, ("not_supported", "chat_template")),
        ("What?", {"chat_template_kwargs": {"chat_template": "x"}}, ("not_supported", "chat_template_kwargs")),
        ("What?", {"tools": [{"type": "function"}]}, ("not_supported", "tools")),
        ("What?", {"logprobs": True}, ("not_supported", "logprobs")),
        ("What?", {"presence_penalty": 0.5}, ("not_supported", "presence_penalty")),
        ("What?", {"prompt_embeds": "AAAA"}, ("invalid", None)),
        ("What?", {"lora": "x", "code_revision": "y"}, ("invalid", None)),
        ([{"type": "video_embeds", "video_embeds": "AAAA"}], {}, ("invalid", None)),
        ("What?", {"stream": "yes"}, ("invalid", "stream")),
    ],
)
def test_whatever_is_too_much_or_unknown_is_refused(
    content: object, more: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    code, field = refused(content, **more)
    assert code == expected[0] and expected[1] in (None, field) or (code, expected[0]) == ("invalid", "invalid")


def test_a_choice_of_frames_that_cannot_be_is_told_by_its_field() -> None:
    assert refused([VIDEO | {"nframes": 32, "max_frames": 16}, text()]) == ("invalid", "nframes")
    assert refused([VIDEO | {"max_frames": 16}, text()], mm_processor_kwargs={"num_frames": 17})[1] == "nframes"
    assert refused([VIDEO | {"video_start": 5, "video_end": 4}, text()]) == ("invalid", "video_end")


def test_a_server_of_many_frames_gives_no_more_than_can_be_sampled() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [VIDEO | {"fps": 2}, text()]}]}
    (video,) = understand(json.dumps(body).encode(), Limits(frames=2 * MOST_FRAMES), ["m"]).media
    assert video.sampling == Sampling("fps", MOST_FRAMES, fps=2.0)


def talk(*words: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": word} for i, word in enumerate(words)]


def test_whole_conversations_have_limits_too() -> None:
    assert refused(messages=talk(*"abcdefg"))[0] == "too_many_turns"
    assert refused(messages=[1] * 5000)[0] == "too_many_turns" and refused([1] * 5000)[0] == "too_many_parts"
    assert refused(messages=[{"role": "user", "content": [1] * 90}] * 60) == ("too_many_parts", "messages")
    assert refused(**{f"field{i}": 1 for i in range(70)}) == ("invalid", None)
    large, long = Limits(turns=6, question_characters=40_000, text_characters=200_000), talk("x" * 30_000)
    with pytest.raises(Refused) as told:  # joined they are one question, longer than a model takes
        understand(json.dumps({"model": "m", "messages": long * 2}).encode(), large, ["m"])
    assert told.value.code == "text_too_long"
    assert refused(messages=talk("x" * 90, "x" * 90, "x"))[0] == "text_too_long"


def test_at_its_limits_a_request_is_taken() -> None:
    said = [{"role": role, "content": "x"} for role in ("user", "assistant") * 2]
    said[1]["content"] = "x" * 47
    assert read(messages=[*said, {"role": "user", "content": "x" * 100}], max_tokens=50).decoding == {
        "max_new_tokens": 50
    }
    assert samplings([VIDEO | {"nframes": 64}, text(), text(), text()]) == [Sampling("count", 64, num_frames=64)]


def test_fields_that_ask_for_nothing_are_taken() -> None:
    nothing = {"tools": None, "logit_bias": None, "whatever": None, "logprobs": False, "presence_penalty": 0, "n": 1}
    nothing |= {"response_format": {"type": "text"}, "tool_choice": "none", "functions": [], "user": "me"}
    assert read(**nothing) == read()
    known = {"stream": None, "n": None, "stream_options": {"include_usage": None}, "evidence": None, "stop": None}
    assert read(**known) == read() and read(max_tokens=None, max_completion_tokens=7).decoding == {"max_new_tokens": 7}
    assert refused(model=None)[0] == "invalid"


WORDS = st.sampled_from(["model", "messages", "role", "content", "type", "text"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner),
)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_no_body_does_more_than_be_refused(body: bytes) -> None:
    with pytest.raises(Refused) as told:
        understand(body, LIMITS, ["m"])
    assert told.value.status == 422 and told.value.code in ("invalid", "not_json")


def test_refusals_name_only_fields_that_are_ours() -> None:
    code, field = refused(**{"<script>": 1})
    assert (code, field) == ("invalid", None)


def test_every_sentence_is_one_and_says_no_more_than_its_status() -> None:
    assert all(reason.sentence.endswith(".") and "{" not in reason.sentence for reason in REASONS.values())
    assert {reason.status for reason in REASONS.values()} <= {
        400,
        401,
        403,
        404,
        405,
        408,
        413,
        422,
        429,
        499,
        500,
        503,
        504,
        507,
    }


# Limits.


def test_limits_are_changed_by_name() -> None:
    changed = with_changes(["frames=2048", "body-bytes=8M", "upload_bytes=2G", "queue=0"])
    assert (changed.frames, changed.body_bytes, changed.upload_bytes, changed.queue) == (2048, 8 << 20, 2 << 30, 0)
    for bad in (
        "frame=1",
        "frames",
        "frames=-1",
        "frames=1.5",
        "frames=3",
        "turns=0",
        "frames=",
        "frames=M",
        "frames=²",
    ):
        with pytest.raises(ValueError, match="limit"):
            with_changes([bad])


# Shelves.


def filled(shelf: Shelf, *names: str, size: int = 40) -> None:
    for name in names:
        with shelf.put(name) as part:
            part.write_bytes(b"x" * size)


def test_the_least_recently_used_goes_first_also_after_a_restart(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "s", 100, ".x")
    filled(shelf, "a", "b", "c")
    assert list(shelf) == ["b", "c"] and shelf.bytes == 80 and not shelf.path("a").exists()
    for number, name in enumerate(("b", "c")):
        os.utime(shelf.path(name), (number, number))
    assert shelf.use("b") == tmp_path / "s" / "b.x" and shelf.use("a") is None
    again = Shelf(tmp_path / "s", 100, ".x")
    assert list(again) == ["c", "b"]
    filled(again, "d")
    assert list(again) == ["b", "d"] and list(Shelf(tmp_path / "s", 50, ".x")) == ["d"]


def test_what_was_half_written_is_never_there(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "s", 100)
    with pytest.raises(RuntimeError), shelf.put("a") as part:
        part.write_bytes(b"half")
        raise RuntimeError
    assert list(shelf) == [] and list((tmp_path / "s").iterdir()) == []
    mine, old = tmp_path / "s" / ".b.1234", tmp_path / "s" / ".c.1234"
    for part in (mine, old):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert list(Shelf(tmp_path / "s", 100)) == [] and list((tmp_path / "s").iterdir()) == [mine]  # it may be written to
    (tmp_path / "scratch" / "x").mkdir(parents=True)
    (tmp_path / ".profile").write_text("somebody's own")
    sweep(tmp_path, ("s", "t"))
    assert set(tmp_path.iterdir()) == {tmp_path / "s", tmp_path / ".profile"} and not list((tmp_path / "s").iterdir())
    filled(shelf, "large", size=101)
    assert "large" not in shelf and not shelf.path("large").exists()
    filled(shelf, "a")
    shelf.path("a").unlink()  # behind its back
    assert shelf.use("a") is None and shelf.bytes == 0


def test_many_small_files_make_room_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videochat_flash.serve.shelf.MOST", 2)
    shelf = Shelf(tmp_path / "s", 100)
    for name in "abc":
        filled(shelf, name, size=0)
    assert list(shelf) == ["b", "c"]


def test_a_stream_that_nobody_reads_is_left_at_its_deadline() -> None:
    let_go = []

    async def lines() -> AsyncIterator[str]:
        yield "data: {}"

    async def nobody(*given: object) -> Any:
        await asyncio.sleep(300)

    async def read() -> None:
        held = AsyncExitStack()
        held.callback(let_go.append, True)
        await Stream(lines(), held, asyncio.get_running_loop().time() + 0.05)({"type": "http"}, nobody, nobody)

    asyncio.run(read())
    assert let_go == [True]


def test_a_shelf_is_shared_by_processes(tmp_path: Path) -> None:
    ours, theirs = Shelf(tmp_path / "s", 100), Shelf(tmp_path / "s", 100)
    filled(ours, "a")
    filled(theirs, "b")
    assert list(ours) == list(theirs) == ["a", "b"] and theirs.use("a")
    filled(ours, "c")  # who was used elsewhere stays
    assert list(theirs) == ["a", "c"] and theirs.bytes == 80 and ours.use("b") is None
    for name in ("../a", "/etc/passwd", "", ".", ".a", "a\0", "ä"):
        assert name not in ours and ours.use(name) is None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60)), max_size=30))
def test_a_shelf_never_holds_more_than_it_may(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[str, int]]
) -> None:
    shelf = Shelf(tmp_path_factory.mktemp("shelf"), 100)
    for name, size in puts:
        filled(shelf, name, size=size)
        there = {file.name: file.stat().st_size for file in shelf.folder.iterdir()}
        assert shelf.bytes == sum(there.values()) <= 100 and set(there) == set(shelf) and name in shelf


# Uploads.

FILE = b'Content-Disposition: form-data; name="file"; filename="a.mp4"\r\nContent-Type: video/mp4'
PURPOSE = b'Content-Disposition: form-data; name="purpose"'


def form(*parts: tuple[bytes, bytes]) -> bytes:
    return b"".join(b"--B\r\n" + head + b"\r\n\r\n" + body + b"\r\n" for head, body in parts) + b"--B--\r\n"


def received(uploads: Uploads, body: bytes, kind: str = "multipart/form-data; boundary=B", step: int = 7) -> Any:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), step):
            yield body[at : at + step]

    return asyncio.run(uploads.receive(chunks(), kind, "me"))


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_upload_is_what_was_sent_however_it_was_cut(tmp_path: Path, step: int) -> None:
    uploads, data = Uploads(tmp_path, 10_000, 5_000), bytes(range(256)) * 3 + b"\r\n--B\r\n-"[:-4]
    made = received(uploads, form((PURPOSE, b"user_data"), (FILE, data)), step=step)
    assert uploads.shelf.path(made.id).read_bytes() == data and made.bytes == len(data)
    assert (made.filename, made.purpose) == ("a.mp4", "user_data") and list(uploads.of("me")) == [made]
    assert uploads.find(made.id, "you") is None and not uploads.drop(made.id, "you") and not list(uploads.of("you"))
    again = Uploads(tmp_path, 10_000, 5_000)
    assert again.find(made.id, "me") == made and again.drop(made.id, "me") and again.find(made.id, "me") is None


def test_names_of_clients_are_words_and_not_paths(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, 10_000, 5_000)
    for name in (b"../../etc/passwd", b"..\\\\..\\\\a", b"/etc/passwd", b"a\x00b", b"x" * 2000):
        made = received(uploads, form((FILE.replace(b"a.mp4", name), b"data")))
        assert "/" not in made.filename and "\0" not in made.filename and len(made.filename) <= 256
    assert {file.parent.name for file in tmp_path.rglob("*") if file.is_file()} == {"data", "notes"}
    for name in ("../notes/x", "", ".", "file-1", "file-" + "0" * 24):
        assert uploads.find(name, "me") is None


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (form((FILE, b"x" * 5001)), "multipart/form-data; boundary=B", "upload_too_large"),
        (form((FILE, b"x"), (FILE, b"y")), "multipart/form-data; boundary=B", "bad_multipart"),
        (form((PURPOSE, b"x")), "multipart/form-data; boundary=B", "bad_multipart"),
        (form((PURPOSE, b"x" * 1000), (FILE, b"x")), "multipart/form-data; boundary=B", "bad_multipart"),
        (form((FILE, b"x" * 1000))[:500], "multipart/form-data; boundary=B", "bad_multipart"),
        (form((FILE + b"\r\nX: " + b"y" * 9000, b"x")), "multipart/form-data; boundary=B", "bad_multipart"),
        (b"nonsense", "multipart/form-data; boundary=B", "bad_multipart"),
        (b"", "multipart/form-data; boundary=B", "bad_multipart"),
        (form((FILE, b"x")), "multipart/form-data", "bad_multipart"),
        (form((FILE, b"x")), "text/plain", "bad_multipart"),
        (form((FILE, b"x")), "", "bad_multipart"),
        (form((FILE, b"")), "multipart/form-data; boundary=B", "bad_multipart"),
    ],
)
def test_other_forms_leave_nothing(tmp_path: Path, body: bytes, kind: str, code: str) -> None:
    uploads = Uploads(tmp_path, 10_000, 5_000)
    with pytest.raises(Refused) as told:
        received(uploads, body, kind)
    assert told.value.code == code and not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_the_oldest_uploads_make_room(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, 2_000, 1_500)
    made = [received(uploads, form((FILE, b"x" * 900))).id for _ in range(3)]
    assert [one.id for one in uploads.of("me")] == made[1:]
    assert len(list((tmp_path / "notes").iterdir())) == 2


# data: URLs.


def test_data_urls_are_read_strictly(tmp_path: Path) -> None:
    data = base64.b64encode(b"some bytes").decode()
    write_data(f"data:video/mp4;base64,{data}", tmp_path / "0")
    assert (tmp_path / "0").read_bytes() == b"some bytes"
    bad = (
        "data:",
        "data:,x",
        "data:video/mp4,abc",
        f"data:video/mp4;base64,{data[:-1]}",
        "data:;base64,",
        "data:;base64,ä",
    )
    for url in (*bad, f"data:{'x' * 200};base64,{data}", f"data:video/mp4;base64,{data}\n!"):
        with pytest.raises(Refused) as told:
            write_data(url, tmp_path / "1")
        assert told.value.code == "bad_data_url" and not (tmp_path / "1").exists()


# Keys.


def test_keys_are_told_apart_and_nothing_else_is_one(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{'a' * 20}\n\n{'b' * 20}\n")
    keys = read_keys(None, tmp_path / "keys")
    first, second = keys.tenant(f"Bearer {'a' * 20}"), keys.tenant(f"bearer {'b' * 20}")
    assert len({first, second, ANYONE}) == 3 and "a" * 20 not in first
    basic = base64.b64encode(f"whoever:{'a' * 20}".encode()).decode()
    assert keys.tenant(f"Basic {basic}") == first
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {'a' * 19}",
        f"{'a' * 20}",
        "Basic !",
        f"Token {'a' * 20}",
        "Bearer \ud800",
    ):
        with pytest.raises(Refused) as told:
            keys.tenant(wrong)
        assert told.value.status == 401
    assert Keys(()).tenant("") == ANYONE


def test_keys_that_can_be_guessed_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("\n")
    for environment, file in (
        ("short", None),
        ("a b" * 10, None),
        ("ä" * 20, None),
        ("", None),
        (None, tmp_path / "none"),
    ):
        with pytest.raises(ValueError, match="key"):
            read_keys(environment, file)
    with pytest.raises(FileNotFoundError):
        read_keys(None, tmp_path / "missing")
    assert read_keys(None, None).digests == ()


def test_loopback_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))


def test_the_log_has_no_stack_unless_one_debugs() -> None:
    try:
        raise KeyError("/a/secret/path")
    except KeyError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "", 1, "Exception in app\n", (), (KeyError, error, error.__traceback__)
        )
    assert Short(False).format(record).endswith("ERROR Exception in app: KeyError")
    assert "Traceback" in Short(True).format(record)


def test_limits_have_no_field_without_a_use() -> None:
    source = "".join(
        file.read_text() for file in (Path(__file__).parents[2] / "videochat_flash" / "serve").glob("*.py")
    )
    assert [one.name for one in fields(Limits) if source.count(one.name) < 2] == []
