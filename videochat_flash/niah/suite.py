"""A suite: every trial written down before any is run, each with an id that follows from all that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..files import beside
from ..journal import canonical, digest
from ..video import CLIP
from . import compat
from .draws import VERSION
from .film import Scenery
from .haystack import Haystack, open_haystack
from .items import Needle, Way
from .place import Film, Part, length_of, shown

SUITE, MANIFEST = "suite.json", "manifest.jsonl"


@dataclass(frozen=True)
class Setting:
    """What a suite is built from.

    Attributes:
        mode: ``strict`` or ``compat``, the reference's rules.
        haystacks: each one the files that it is joined from, or ``procedural``.
        lengths: frames of films; in compat of the haystack alone, as in the reference.
        depths: of single needles, 0 to 1; none leaves the single-hop suite out.
        items: needles, and chains for each number of hops.
        hops: of chains; none leaves the multi-hop suite out.
        decoys: chains beside the true one.
        hold: frames that a needle is shown for.
        align: ``clip`` puts needles between clips of 4 frames, ``frame`` anywhere.
        way: answer in ``words``, or choose among ``letters``.
        rotations: orders of the letters that every question is asked with.
        controls: items that the controls are run on.
        fps: frames a second that are taken of haystack files.
        size: width and height of films; None is the haystack's own.
        seed: of everything that is drawn.
        allow_repeat: whether a haystack may begin anew.
        duplicate: whether compat shows half of a long haystack twice, as the reference does.
        needles: a JSON list of needles instead of drawn ones.
        images: the folder that its image paths start from.
    """

    mode: Literal["strict", "compat"] = "strict"
    haystacks: tuple[tuple[str, ...], ...] = (("procedural",),)
    lengths: tuple[int, ...] = (64,)
    depths: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    items: int = 20
    hops: tuple[int, ...] = ()
    decoys: int = 1
    hold: int = 4
    align: Literal["clip", "frame"] = "clip"
    way: Way = "words"
    rotations: int = 1
    controls: int = 8
    fps: float = 1.0
    size: tuple[int, int] | None = None
    seed: int = 0
    allow_repeat: bool = False
    duplicate: bool = True
    needles: str = ""
    images: str = ""

    def __post_init__(self) -> None:
        for wrong, text in (
            (not self.lengths or min(self.lengths) < CLIP, "--lengths needs frames of 4 and more, as 64,256"),
            (
                any(n % CLIP for n in self.lengths) and self.mode == "strict",
                "--lengths must be whole clips of 4 frames",
            ),
            (any(not 0 <= d <= 1 for d in self.depths), "--depths must lie between 0 and 1, as 0,0.5,1"),
            (not self.depths and not self.hops and not self.needles, "neither --depths nor --hops ask for any trial"),
            (any(not 0 <= h <= 4 for h in self.hops), "--hops must lie between 0 and 4"),
            (not 0 <= self.decoys <= 2, f"--decoys must be 0, 1 or 2, not {self.decoys}"),
            (self.controls < 0, f"--controls must be 0 or more, not {self.controls}"),
            (
                0 in self.hops and not self.decoys and self.way == "letters",
                "--hops 0 with --decoys 0 leaves one option alone: ask with --ask words, or with decoys",
            ),
            (self.items < 1, f"--items must be at least 1, not {self.items}"),
            (not 1 <= self.hold <= 40, f"--hold must be 1 to 40 frames, not {self.hold}"),
            (not 1 <= self.rotations <= 4, f"--rotations must be 1 to 4, not {self.rotations}"),
            (self.rotations > 1 and self.mode == "compat", "--rotations are not the reference's: leave out --compat"),
            (self.rotations > 1 and self.way == "words", "--rotations turn letters: ask with --ask letters"),
            (
                self.mode == "compat" and (self.fps, self.hold, self.align) != (1.0, 4, "clip"),
                "--compat has the reference's --fps, --hold and --align: leave them out",
            ),
            (bool(self.hops and self.needles), "--hops draws chains, --needles brings its own: leave one of them out"),
            (self.mode == "compat" and not self.needles, "--compat needs an official list: give it with --needles"),
        ):
            if wrong:
                raise ValueError(text)

    @property
    def flags(self) -> tuple[str, ...]:
        """Every choice that makes figures incomparable with others of the same mode; printed in the report."""
        usual = Setting(mode=self.mode, needles=self.needles)
        strict: tuple[str, ...] = ("way", "hold", "align", "fps", "allow_repeat", "rotations", "size")
        names = (*strict, "decoys") if self.hops else strict
        if self.mode == "compat":
            names = ("allow_repeat", "duplicate", "size")
        plain = {name: (getattr(self, name), getattr(usual, name)) for name in names}
        told = tuple(f"{name}={value}" for name, (value, other) in plain.items() if value != other)
        listed = self.needles and self.mode == "strict"
        return (f"needles={Path(self.needles).name}", *told) if listed else told


@dataclass(frozen=True)
class Trial:
    """One question about one film.

    Attributes:
        suite: ``single`` or ``multi``.
        control: "" for the grid itself, or ``C0`` to ``C7``.
        item: whose needles are shown.
        role: of the question: ``single``, ``cap`` or ``qa``.
        kind: what is asked, as ``colour``.
        asked: how many questions belong together.
        haystack: number of the haystack.
        stack: its digest.
        length: frames that count on the axis of lengths.
        depth: of a single needle; None for chains.
        hops: pointers to follow.
        rotation: how far the letters are turned.
        film: what is shown; empty where nothing is.
        assets: digest of the needles in it.
        prompt: what is sent, exactly.
        options: in the order of their letters.
        answer: index of the right one.
        lettered: whether letters were shown.
        guess: chance.
        mode: whose rules hold.
    """

    suite: Literal["single", "multi"]
    control: str
    item: str
    role: str
    kind: str
    asked: int
    haystack: int
    stack: str
    length: int
    depth: float | None
    hops: int
    rotation: int
    film: Film
    assets: str
    prompt: str
    options: tuple[str, ...]
    answer: int
    lettered: bool
    guess: float
    mode: str
    version: str = VERSION
    id: str = field(default="", compare=False)

    def named(self) -> Trial:
        """With its id: SHA-256 of the canonical JSON of everything else."""
        return replace(self, id=digest(self.plain()))

    def plain(self) -> dict[str, object]:
        """As JSON holds it, without the id."""
        values = asdict(self)
        values["film"] = [[part.needle, part.first, part.count] for part in self.film]
        del values["id"]
        return values

    @staticmethod
    def read(row: Mapping[str, Any]) -> Trial:
        """From a row of a manifest.

        Raises:
            ValueError: keys that are no trial's.
        """
        if set(row) != {one.name for one in fields(Trial)}:
            raise ValueError("not a trial of this version")
        film = tuple(Part(*part) for part in row["film"])
        return Trial(**{**row, "film": film, "options": tuple(row["options"])})


@dataclass(frozen=True)
class Suite:
    """A suite that was built.

    Attributes:
        folder: where it is.
        setting: what it was built from.
        stacks: facts of each haystack: name, digest, size, frames, near-duplicates.
        needles: by name.
        trials: in the manifest's order.
        manifest: digest of the manifest's bytes.
    """

    folder: Path
    setting: Setting
    stacks: tuple[Mapping[str, Any], ...]
    needles: Mapping[str, Needle]
    trials: tuple[Trial, ...]
    manifest: str

    def haystack(self, number: int) -> Haystack:
        """A haystack, opened again.

        Raises:
            VideoError: a file that is not there any more.
            ValueError: another file than the one that the suite was built with.
        """
        found = open_stack(self.setting, number)
        if found.digest != self.stacks[number]["digest"]:
            raise ValueError(f"haystack {found.name} is not the one that {self.folder} was built with: build it anew")
        return found

    def scenery(self, number: int) -> Scenery:
        """What films of a haystack are made of."""
        return Scenery(self.haystack(number), self.needles, square=self.setting.mode == "compat")

    def needed(self, number: int) -> int:
        """Haystack frames that films show."""
        return max((shown(trial.film) for trial in self.trials if trial.haystack == number), default=0)

    @property
    def unique(self) -> int | None:
        """Different frames of the shortest haystack, or None where none ends before the longest film."""
        known = [stack["unique"] for stack in self.stacks if stack["repeated"]]
        return min(known, default=None)


def open_stack(setting: Setting, number: int) -> Haystack:
    """A haystack of a setting."""
    names = setting.haystacks[number]
    compatible = setting.mode == "compat"
    repeat = setting.allow_repeat
    return open_haystack(
        names, setting.seed, number, fps=setting.fps, size=setting.size, repeat=repeat, every=compatible
    )


def save_suite(
    folder: Path,
    setting: Setting,
    stacks: list[dict[str, Any]],
    needles: Mapping[str, Needle],
    trials: list[Trial],
) -> Suite:
    """Write suite.json and manifest.jsonl.

    Raises:
        ValueError: another suite is there.
        OSError: they cannot be written there.
    """
    text = "".join(canonical({**one.plain(), "id": one.id}) + "\n" for one in trials)
    manifest = hashlib.sha256(text.encode()).hexdigest()
    if (folder / MANIFEST).exists() and (folder / MANIFEST).read_bytes() != text.encode():
        raise ValueError(f"{folder} holds another suite: name a new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "version": VERSION,
        "manifest": manifest,
        "setting": asdict(setting),
        "haystacks": stacks,
        "needles": {name: asdict(one) for name, one in needles.items()},
    }
    with beside(folder / SUITE) as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with beside(folder / MANIFEST) as part:
        part.write_text(text, encoding="utf-8")
    return Suite(folder, setting, tuple(stacks), dict(needles), tuple(trials), manifest)


def load_suite(folder: Path) -> Suite:
    """Read a suite.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another version.
    """
    for name in (SUITE, MANIFEST):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing: make a suite with 'vcflash niah build --out {folder}'"
            )
    try:
        facts = json.loads((folder / SUITE).read_text(encoding="utf-8"))
        if facts["version"] != VERSION:
            raise ValueError(f"{folder} was built by another version: build it anew")
        setting = _setting(facts["setting"])
        needles = {name: Needle(**{**one, "card": tuple(one["card"])}) for name, one in facts["needles"].items()}
        data = (folder / MANIFEST).read_bytes()
        trials = tuple(Trial.read(json.loads(line)) for line in data.decode().split("\n") if line)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds a damaged suite ({type(error).__name__}: {error}): build it anew") from None
    manifest = hashlib.sha256(data).hexdigest()
    if manifest != facts["manifest"]:
        raise ValueError(f"{folder / MANIFEST} was changed after it was built: build the suite anew")
    return Suite(folder, setting, tuple(facts["haystacks"]), needles, trials, manifest)


def _setting(values: Mapping[str, Any]) -> Setting:
    """A setting out of JSON, whose lists are tuples."""

    def tupled(value: Any) -> Any:
        return tuple(map(tupled, value)) if isinstance(value, list) else value

    return Setting(**{name: tupled(value) for name, value in values.items()})


def verify(suite: Suite) -> Iterator[str]:
    """What is wrong with a suite, one line each; nothing where all is well."""
    known: set[str] = set()
    for number, trial in enumerate(suite.trials, 1):
        where = f"{MANIFEST}, line {number}"
        if trial.named().id != trial.id:
            yield f"{where}: the id is not that of the trial"
        if trial.id in known:
            yield f"{where}: the trial is there twice"
        known.add(trial.id)
        yield from (f"{where}: {words}" for words in _film_wrong(suite, trial))
    yield from _pictures_wrong(suite.needles)
    for number in range(len(suite.stacks)):
        try:
            suite.haystack(number).need(suite.needed(number))
        except ValueError as error:
            yield str(error)


def _film_wrong(suite: Suite, trial: Trial) -> Iterator[str]:
    missing = [part.needle for part in trial.film if part.needle and part.needle not in suite.needles]
    if missing:
        yield f"needle {missing[0]} is not in {SUITE}"
    elif assets_of(trial.film, suite.needles) != trial.assets:
        yield "the needles are not those of the trial"
    if suite.setting.mode == "strict" and length_of(trial.film) % CLIP:
        yield "the film is not whole clips"


def _pictures_wrong(needles: Mapping[str, Needle]) -> Iterator[str]:
    for name, needle in needles.items():
        path = Path(needle.picture)
        if needle.picture and not path.is_file():
            yield f"needle {name}: image {path} is missing"
        elif needle.picture and hashlib.sha256(path.read_bytes()).hexdigest() != needle.sha256:
            yield f"needle {name}: image {path} is another one than when the suite was built"


def assets_of(film: Film, needles: Mapping[str, Needle]) -> str:
    """Digest of the needles in a film; the place of a picture is no part of it."""
    shown = dict.fromkeys(part.needle for part in film if part.needle)
    return digest([asdict(replace(needles[name], picture="")) for name in shown])


def deviations(setting: Setting) -> tuple[str, ...]:
    """What a compat run does otherwise than the reference."""
    return compat.DEVIATIONS if setting.mode == "compat" else ()
