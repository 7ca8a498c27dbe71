"""The model as lmms-eval calls it: with the library where it is installed, else with a stand-in for it."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import videos
from command import ROOT, small_model

from videochat_flash import VideoChatFlash
from videochat_flash.eval.ask import Unanswered
from videochat_flash.generate import Decoding

pytestmark = pytest.mark.usefixtures("unchecked")
QUESTIONS = ("What?", "Which one of these is it?", "Is there a red star?")
GREEDY: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0, "do_sample": False, "until": ["\n\n"]}


def stand_in() -> dict[str, ModuleType]:
    """The four classes of lmms-eval that a model needs, for environments without it."""

    class lmms:
        def __init__(self) -> None:
            self._rank, self._world_size, self.task_dict = 0, 1, {}

        @property
        def rank(self) -> int:
            return int(self._rank)

        @property
        def world_size(self) -> int:
            return int(self._world_size)

    @dataclass
    class TokenCounts:
        input_tokens: int | None = None
        output_tokens: int | None = None

    @dataclass
    class GenerationResult:
        text: str
        token_counts: TokenCounts | None = None

    @dataclass
    class Instance:
        request_type: str
        arguments: tuple[Any, ...]
        idx: int
        metadata: dict[str, Any] = field(default_factory=dict)

        @property
        def args(self) -> tuple[Any, ...]:
            return self.arguments

    @dataclass(frozen=True)
    class ModelManifest:
        model_id: str
        chat_class_path: str

    parts = {
        "lmms_eval.api.model": [lmms],
        "lmms_eval.api.instance": [GenerationResult, Instance, TokenCounts],
        "lmms_eval.models.registry_v2": [ModelManifest],
    }
    made = {name: ModuleType(name) for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.models", *parts)}
    for name, classes in parts.items():
        for one in classes:
            setattr(made[name], one.__name__, one)
    return made


@pytest.fixture(scope="module")
def plugin() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("lmms_eval") is None:
            for name, module in stand_in().items():
                patch.setitem(sys.modules, name, module)
        yield importlib.import_module("videochat_flash.eval.lmms.plugin")
        sys.modules.pop("videochat_flash.eval.lmms.plugin")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    return [videos.make(tmp_path / f"{i}.mp4", 16 + i, 2) for i in range(2)]


def requests(plugin: Any, films: Sequence[Path], how: dict[str, Any] = GREEDY, repeats: int = 1) -> list[Any]:
    """Of each question one about each film, so that neighbours are about different ones."""
    docs = [(film, question) for question in QUESTIONS for film in films]

    def instance(number: int, **more: Any) -> Any:
        film, question = docs[number]
        content = [{"type": "video", "url": str(film)}, {"type": "text", "text": question}]
        arguments = ("", lambda doc: [{"role": "user", "content": content}], how, number, "task", "test")
        return plugin.Instance("generate_until", arguments, 0, {"task": "task", "doc_id": number, "repeats": 1} | more)

    found = [instance(number) for number in range(len(docs)) for _ in range(repeats)]
    return [*found, instance(0, __padding_only__=True)]


def started(plugin: Any, model: Path, **how: Any) -> Any:
    made = plugin.VideoChatFlashChat(pretrained=str(model), device="cpu", **how)
    made.task_dict = {"task": {"test": dict.fromkeys(range(99))}}
    return made


def counting(made: Any, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    seen: Counter[str] = Counter()
    plain = made.vc.see

    def see(video: Path, *how: Any) -> Any:
        seen[Path(video).name] += 1
        return plain(video, *how)

    monkeypatch.setattr(made.vc, "see", see)
    return seen


def test_lmms_eval_finds_it_by_its_entry_point(plugin: Any) -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    module, _, name = points["vcflash"].partition(":")
    manifest = getattr(importlib.import_module(module), name)()
    assert (module, manifest.model_id) == (plugin.__name__, "vcflash")
    where, _, name = manifest.chat_class_path.rpartition(".")
    assert getattr(importlib.import_module(where), name) is plugin.VideoChatFlashChat
    assert plugin.VideoChatFlashChat.is_simple is False


@pytest.mark.parametrize("batch", [1, "4", 64])
def test_answers_are_those_of_the_model_in_the_order_of_the_requests(
    plugin: Any, model: Path, films: list[Path], batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    vc = VideoChatFlash.from_pretrained(model)
    how = Decoding(max_new_tokens=8, eos=vc.decoding.eos)
    plain = [vc.answer(vc.see(film), question, decoding=how) for question in QUESTIONS for film in films]
    made = started(plugin, model, batch_size=batch)
    seen = counting(made, monkeypatch)
    found = made.generate_until(requests(plugin, films))
    assert [one.text for one in found] == [*plain, ""] and seen == {"0.mp4": 1, "1.mp4": 1}
    assert found[0].token_counts.output_tokens <= 8 < found[0].token_counts.input_tokens
    assert len(set(plain)) > 3


def test_without_media_it_is_blind(
    plugin: Any, model: Path, films: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started(plugin, model, blind=True)
    seen = counting(made, monkeypatch)
    how = Decoding(max_new_tokens=8, eos=made.vc.decoding.eos)
    found = made.generate_until(requests(plugin, films))
    assert found[0].text == found[1].text == made.vc.answer(None, QUESTIONS[0], decoding=how) and not seen


def test_what_was_answered_is_not_asked_again(
    plugin: Any, model: Path, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = started(plugin, model, cache=str(cache)).generate_until(requests(plugin, films))
    again = started(plugin, model, cache=str(cache))
    seen = counting(again, monkeypatch)
    assert again.generate_until(requests(plugin, films)) == first and not seen
    assert again.generate_until(requests(plugin, films, {**GREEDY, "max_new_tokens": 2})) != first and seen
    other = started(plugin, small_model(tmp_path, seed=1), cache=str(cache))
    assert other.generate_until(requests(plugin, films)) != first and len(list(cache.iterdir())) == 2


def test_a_failure_raises_and_is_no_answer(
    plugin: Any, model: Path, films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = films[0].read_bytes()
    films[0].write_bytes(b"no video")
    with pytest.raises(Unanswered, match=r"1 of 7 requests failed, nothing is scored, name a cache=FOLDER .*0\.mp4"):
        started(plugin, model).generate_until(requests(plugin, films))
    cache = tmp_path / "cache"
    with pytest.raises(Unanswered, match=r"3 of 7 requests failed, nothing is scored, the others are kept in"):
        started(plugin, model, cache=str(cache), batch_size=4).generate_until(requests(plugin, films))
    films[0].write_bytes(whole)
    mended = started(plugin, model, cache=str(cache), batch_size=4)
    seen = counting(mended, monkeypatch)
    found = mended.generate_until(requests(plugin, films))
    assert seen == {"0.mp4": 1} and found == started(plugin, model).generate_until(requests(plugin, films))


def test_a_failure_of_one_process_ends_them_all(plugin: Any, model: Path, tmp_path: Path) -> None:
    made = started(plugin, model)
    made._world_size = 2
    with pytest.raises(SystemExit, match=r"vcflash: 1 of 4 requests failed"):
        made.generate_until(requests(plugin, [tmp_path / "none.mp4"]))


def test_many_videos_in_a_row_that_fail_end_it(
    plugin: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [tmp_path / f"{i}.mp4" for i in range(20)]
    made = started(plugin, model, cache=str(tmp_path / "cache"))
    seen = counting(made, monkeypatch)
    with pytest.raises(Unanswered, match=r"28 of 61 requests failed"):  # three questions each, about nine and a tenth
        made.generate_until(requests(plugin, bad))
    assert len(seen) == 10


def test_too_little_memory_for_a_batch_is_enough_for_one(
    plugin: Any, model: Path, films: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plugin.finish

    def finish(vc: Any, begun: Sequence[Any], how: Any) -> Any:
        if len(begun) > 1:
            raise torch.OutOfMemoryError("too many")
        return plain(vc, begun, how)

    expected = started(plugin, model).generate_until(requests(plugin, films))
    monkeypatch.setattr(plugin, "finish", finish)
    assert started(plugin, model, batch_size=6).generate_until(requests(plugin, films)) == expected


def test_repeated_requests_draw_their_own_answers(plugin: Any, model: Path, films: list[Path]) -> None:
    warm = {**GREEDY, "temperature": 1.0, "do_sample": True}
    made = started(plugin, model, batch_size=2)
    found = [one.text for one in made.generate_until(requests(plugin, films, warm, repeats=3))][:-1]
    groups = [found[i : i + 3] for i in range(0, len(found), 3)]
    assert any(len(set(group)) > 1 for group in groups)
    assert found == [one.text for one in made.generate_until(requests(plugin, films, warm, repeats=3))][:-1]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"max_num_frames": 512}, "no argument max_num_frames; of frames and dropout: policy, fps"),
        ({"dtype": "int8"}, "dtype 'int8' is not known"),
        ({"batch_size": "auto"}, "batch_size must be a number"),
        ({"keep": "99:0.5"}, "99"),
        ({"fps": 1.0, "num_frames": 8}, "exclude each other"),
    ],
)
def test_arguments_that_cannot_be(plugin: Any, model: Path, how: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        started(plugin, model, **how)


def test_what_is_not_built_is_told(plugin: Any, model: Path) -> None:
    made = started(plugin, model)
    for call in (made.loglikelihood, made.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="vcflash"):
            call([])
