"""The official client against a running server: what it gets is what the model says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Generator, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import openai
import pytest
from command import ROOT
from PIL import Image
from serving import Served

from videochat_flash.chat import Reply, VideoChatFlash
from videochat_flash.evidence import look
from videochat_flash.prompt import Turn
from videochat_flash.serve.limits import Limits, with_changes
from videochat_flash.serve.wire import understand
from videochat_flash.video import Sampling

Content = list[dict[str, Any]]


def about(url: str, words: str, **keys: object) -> Content:
    return [{"type": "video_url", "video_url": {"url": url}, **keys}, {"type": "text", "text": words}]


def asked(served: Served, content: object, **how: Any) -> Any:
    messages = [{"role": "user", "content": content}]
    return served.client.chat.completions.create(model=served.model, messages=messages, **how)


def whole(pieces: Generator[str, None, Reply]) -> Reply:
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            reply: Reply = end.value
            return reply


def test_a_plain_answer_is_the_model_s(served: Served, vc: VideoChatFlash, films: Path) -> None:
    said = asked(served, about("a.mp4", "What is it?", nframes=20))  # as no other test does: it is seen anew
    sight = vc.see(films / "a.mp4", Sampling("count", num_frames=20))
    assert said.choices[0].message.content == vc.answer(sight, "What is it?") != ""
    assert said.choices[0].finish_reason in ("stop", "length")
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens
    visual = sight.tokens.shape[0] * sight.tokens.shape[1]
    assert (said.usage.frames, said.usage.visual_tokens) == (sight.frames, visual)
    assert said.usage.visual_tokens_per_layer == list(whole(vc.reply(sight, "What is it?")).visual)
    assert set(said.usage.seconds) >= {"encode", "decode", "prefill", "decode tokens"}


def test_a_stream_is_the_plain_answer_in_pieces(served: Served) -> None:
    plain = asked(served, about("a.mp4", "And now?"))
    chunks = list(asked(served, about("a.mp4", "And now?"), stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == plain.choices[0].message.content and len(pieces) > 2
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == plain.choices[0].finish_reason
    assert not chunks[-1].choices and chunks[-1].usage.prompt_tokens == plain.usage.prompt_tokens
    bare = list(asked(served, "Hello?", stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in bare)


def test_several_turns_see_once(served: Served, vc: VideoChatFlash, films: Path) -> None:
    opening = {"role": "user", "content": about("b.mp4", "First?", nframes=8)}
    create = served.client.chat.completions.create
    first = create(model=served.model, messages=[opening])
    said = first.choices[0].message
    turns = [opening, said.model_dump(), {"role": "user", "content": "Second?"}]
    second = create(model=served.model, messages=turns)
    sight = vc.see(films / "b.mp4", Sampling("count", num_frames=8))
    history = [Turn("user", "First?"), Turn("assistant", said.content or "")]
    assert second.choices[0].message.content == vc.answer(sight, "Second?", history=history)
    assert (first.usage.sights_reused, second.usage.sights_reused) == (0, 1)
    assert (first.usage.prefix_reused, second.usage.prefix_reused) == (False, True)
    assert "encode" not in second.usage.seconds


def test_pictures_and_videos_stand_side_by_side(
    served: Served, vc: VideoChatFlash, films: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (60, 40), (200, 30, 30)).save(tmp_path / "red.png")
    data = base64.b64encode((tmp_path / "red.png").read_bytes()).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "auto"}}
    alone = asked(served, [picture, {"type": "text", "text": "Which colour?"}])
    assert alone.choices[0].message.content == vc.answer(vc.see(tmp_path / "red.png"), "Which colour?")
    both = asked(served, [picture, *about("b.mp4", "Which?", video_start=1, video_end=4)])
    sights = [vc.see(tmp_path / "red.png"), vc.see(films / "b.mp4", Sampling(max_frames=60, start=1, end=4))]
    assert both.choices[0].message.content == vc.answer(sights, "Which?")


def test_an_upload_is_known_by_its_id(served: Served, films: Path) -> None:
    client = served.client
    with (films / "a.mp4").open("rb") as file:
        made = client.files.create(file=file, purpose="user_data")
    assert (made.filename, made.bytes) == ("a.mp4", (films / "a.mp4").stat().st_size)
    assert made.id in [one.id for one in client.files.list()] and client.files.retrieve(made.id) == made
    assert asked(served, about(made.id, "What?")).choices[0].message.content == (
        asked(served, about("a.mp4", "What?")).choices[0].message.content
    )
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as told:
        asked(served, about(made.id, "What?"))
    assert told.value.code == "unknown_file"
    assert list((served.store / "uploads").rglob(f"{made.id}*")) == []


def test_a_uuid_stands_for_what_was_sent_with_it(served: Served, films: Path) -> None:
    data = base64.b64encode((films / "b.mp4").read_bytes()).decode()
    video = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}, "uuid": "holiday"}
    words = {"type": "text", "text": "Where?"}
    first = asked(served, [video, words])
    again = asked(served, [{"type": "video_url", "uuid": "holiday"}, words])
    assert again.choices[0].message.content == first.choices[0].message.content and again.usage.sights_reused == 1
    with pytest.raises(openai.BadRequestError) as told:
        asked(served, [{"type": "video_url", "uuid": "work"}, words])
    assert told.value.code == "unknown_uuid"


def test_what_is_served_is_listed(served: Served) -> None:
    (model,) = served.client.models.list()
    assert model.id == served.model and served.client.models.retrieve(model.id).id == model.id
    assert served.request("GET", "/health").json == {"status": "ok"}


def references(told: object) -> Iterator[str]:
    """Every address in a description of routes: of a $ref, or of a kind of part."""
    if isinstance(told, dict):
        for name, value in told.items():
            yield from [value] if name == "$ref" else value.values() if name == "mapping" else references(value)
    elif isinstance(told, list):
        for value in told:
            yield from references(value)


def test_what_machines_are_told_of_the_routes_is_whole(served: Served) -> None:
    told = served.request("GET", "/openapi.json").json
    found = set(references(told))
    assert {f"#/components/schemas/{name}" for name in ("ChatRequest", "Message", "VideoPart")} <= found
    for one in found:
        place = told
        for step in one.removeprefix("#/").split("/"):
            assert step in place, one
            place = place[step]
    objects = told["components"]["schemas"]
    assert {"max_tokens", "max_completion_tokens"} <= set(objects["ChatRequest"]["properties"])
    assert all({"nframes", "num_frames"} <= set(objects[name]["properties"]) for name in ("Look", "VideoPart"))
    bodies = [told["paths"][path]["post"]["requestBody"]["content"] for path in ("/v1/chat/completions", "/v1/files")]
    assert [kind for body in bodies for kind in body] == ["application/json", "multipart/form-data"]
    assert bodies[1]["multipart/form-data"]["schema"]["required"] == ["file"]


def test_what_was_done_is_counted(served: Served) -> None:
    for _ in range(2):
        asked(served, about("b.mp4", "How many?", nframes=12))
    served.ask(about("nothing.mp4", "What?"))
    told = served.told()
    assert (told["vcflash_ready"], told["vcflash_waiting"], told["vcflash_active"]) == (1, 0, 0)
    route = 'route="/v1/chat/completions"'
    counted = [f'vcflash_requests_total{{{route},status="{status}"}}' for status in (200, 400)]
    counted += ['vcflash_refused_total{code="path_refused"}']
    stages = ("decode", "encode", "prefill", "decode_tokens")
    counted += [f'vcflash_stage_seconds_{what}{{stage="{stage}"}}' for stage in stages for what in ("sum", "count")]
    counted += [f'vcflash_frames_total{{how="{how}"}}' for how in ("asked", "seen")]
    counted += [f'vcflash_tokens_total{{kind="{kind}"}}' for kind in ("prompt", "visual", "generated")]
    counted += [f'vcflash_cache_total{{found="yes",what="{what}"}}' for what in ("sight", "prefix")]
    assert [name for name in counted if told.get(name, 0) <= 0] == []


def test_sampling_and_the_answer_s_length_can_be_chosen(served: Served) -> None:
    keys = {"mm_processor_kwargs": {"fps": 1.0, "num_frames": 12}}
    said = asked(served, about("a.mp4", "What?"), max_tokens=2, temperature=0.7, seed=5, top_p=0.9, extra_body=keys)
    assert said.usage.frames == 12 and said.usage.completion_tokens <= 2
    own = asked(served, about("a.mp4", "What?", fps=2), extra_body={"mm_processor_kwargs": {"num_frames": 12}})
    assert own.usage.frames == 12
    off = asked(served, about("a.mp4", "What?"), extra_body={"keep": "off"})
    assert len(set(off.usage.visual_tokens_per_layer)) == 1


def test_evidence_comes_with_the_answer_if_it_is_asked_for(served: Served, vc: VideoChatFlash, films: Path) -> None:
    told = look(vc, vc.see(films / "a.mp4", Sampling(max_frames=64)), "Where?").told()
    said = asked(served, about("a.mp4", "Where?"), extra_body={"evidence": True})
    assert said.evidence == told and "evidence" in said.usage.seconds
    chunks = list(asked(served, about("a.mp4", "Where?"), stream=True, extra_body={"evidence": True}))
    assert chunks[-1].evidence == told and not chunks[-1].choices
    assert not hasattr(asked(served, "Where?", extra_body={"evidence": True}), "evidence")


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_is_a_status_and_a_constant_sentence(served: Served, stream: bool) -> None:
    text = base64.b64encode(b"no video at all").decode()
    with pytest.raises(openai.BadRequestError) as told:
        asked(served, about(f"data:video/mp4;base64,{text}", "What?"), stream=stream)
    assert told.value.code == "undecodable" and told.value.type == "invalid_request_error"
    assert str(told.value.body["message"]).startswith("The video or picture cannot be decoded. (request req-")  # type: ignore[index]


def test_a_stream_with_progress_tells_what_is_seen_and_fails_in_the_stream(served: Served) -> None:
    options = {"stream": True, "stream_options": {"include_progress": True}}
    lines = served.ask(about("b.mp4", "Progress?", nframes=20), **options).body.decode().split("\n\n")
    assert lines[1:3] == [": seen 16 of 20", ": seen 20 of 20"] and lines[-2] == "data: [DONE]"
    text = base64.b64encode(b"nothing").decode()
    lines = served.ask(about(f"data:video/mp4;base64,{text}", "?"), **options).body.decode().split("\n\n")
    assert json.loads(lines[1].removeprefix("data: "))["error"]["code"] == "undecodable"


def test_the_example_of_the_documentation_runs(served: Served, films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    for name, ours in (
        ("http://127.0.0.1:8000/v1", served.url),
        ("flash-tiny", served.model),
        ("needle.mp4", films / "a.mp4"),
    ):
        assert name in example
        example = example.replace(name, str(ours))
    exec(compile(example, "docs/serving.md", "exec"), {})
    assert capsys.readouterr().out
    for video in served.client.files.list():
        served.client.files.delete(video.id)


def test_the_requests_of_the_documentation_are_valid() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (body,) = re.findall(r"-d '(\{.*?\})'", page, flags=re.DOTALL)
    ask = understand(body.encode(), Limits(), ["flash-tiny"])
    assert ask.media[0].sampling == Sampling("fps", 1024, fps=1.0)
    assert {one.name for one in fields(Limits)} <= set(re.findall(r"`(\w+)`", page))  # every limit is told of


def test_the_limits_of_the_documentation_let_in_as_much_as_it_says() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    limits = with_changes(re.findall(r"--limit (\w+=\d\w*)", page))
    assert limits.frames == 10_000 and limits.pixels >= limits.frames * 1920 * 1080
