"""Recipes: read strictly, derived from a base, changed on the command line, written back whole."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videochat_flash.config import RELEASES
from videochat_flash.train.recipe import (
    MODELS,
    SCHEMA,
    Lora,
    Optimizer,
    Rates,
    Recipe,
    Source,
    Video,
    architecture,
    load_recipe,
    steps_of,
)
from videochat_flash.train.worlds import World
from videochat_flash.train.written import _toml, resolved

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
STAGES = sorted(RECIPES.glob("*-*/stage*.toml"))
SMALL = """
out = "run"
model = "flash-tiny"
rates.connector = 1e-3
[[data]]
annotation = "a.json"
"""


def written(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path, SMALL)


# The page about them.


@pytest.mark.parametrize(
    ("kind", "table"),
    [(Recipe, ""), (Rates, "rates."), (Optimizer, "optimizer."), (Video, "video."), (Lora, "lora."), (Source, "data."),
     (World, "world.")],
)  # fmt: skip
def test_every_key_and_its_default_stand_in_the_page_about_training(kind: type, table: str) -> None:
    page = (RECIPES.parent / "docs" / "training.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \| .{4,} \|$", page, re.MULTILINE))
    plain = {one.name: one.default for one in fields(kind) if not is_dataclass(one.default) and one.name != "data"}
    own = {"out": "none"} | {
        f"world.{name}": f"all {len(getattr(World, name))}" for name in ("characters", "colours", "shapes")
    }
    assert {
        table + name: own.get(table + name, f"`{_toml(value)}`") for name, value in plain.items()
    }.items() <= said.items()


# The recipes that are there.


@pytest.mark.parametrize("path", STAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_stage_of_the_paper_has_the_published_numbers(path: Path) -> None:
    """As the authors' scripts have it; the tower's own rate, which their runs lost, is real."""
    recipe = load_recipe(path)
    one = recipe.start == ""
    assert (
        recipe.rates
        == {
            "stage1": Rates(0.0, 1e-3, 0.0),
            "stage2": Rates(2e-6, 1e-5, 1e-5),
            "stage3": Rates(2e-6, 1e-5, 1e-5),
            "stage4": Rates(2e-6, 1e-5, 0.0),
        }[path.stem]
    )
    assert (
        recipe.video
        == {
            "stage1": Video("middle", 4, 4),
            "stage2": Video("dynamic", 4, 8),
            "stage3": Video("dynamic", 64, 512),
            "stage4": Video("dynamic", 64, 512),
        }[path.stem]
    )
    assert (recipe.batch, recipe.max_rows) == ((512, 8192) if one else (256, 32768))
    assert (recipe.template, recipe.tiles) == (("plain", 1) if one else ("chat", 6))
    assert (recipe.epochs, recipe.seed, recipe.loss, recipe.train_with_dropout) == (1, 42, "sample", "")
    assert recipe.optimizer == Optimizer(0.0, 0.9, 0.999, 1e-8, 1.0, 0.03)
    assert recipe.mixture.endswith(".yaml")
    assert recipe.out == f"runs/{path.parent.name}/{path.stem}"
    assert one == (path.stem == "stage1") == bool(recipe.tower and recipe.decoder)


def test_every_stage_and_variant_of_the_paper_is_there() -> None:
    there = {f"{path.parent.name}/{path.stem}" for path in STAGES}
    variants = ("umt224-7b", "umt448-2b", "internvideo2-7b")
    assert there == {f"{name}/stage{n}" for name in variants for n in (1, 2, 3)} | {"umt224-7b/stage4"}


def test_stages_of_flash_tiny_begin_with_what_earlier_ones_leave_and_none_is_for_nothing() -> None:
    recipes = [load_recipe(path) for path in sorted((RECIPES / "tiny").glob("stage*.toml"))]
    first, *rest = recipes
    assert len(recipes) > 6 and not first.start
    left, used = {f"{first.out}/model"}, set()
    for one in rest:
        begun = {place for place in (one.start, one.tower, one.connector, one.decoder) if place}
        assert begun and begun <= left and (not one.heads or Path(one.heads).parent / "model" in map(Path, left))
        left.add(f"{one.out}/model")
        used |= begun
    assert left - used == {f"{recipes[-1].out}/model"}


def test_a_stage_starts_from_what_the_one_before_it_leaves() -> None:
    for path in STAGES:
        recipe = load_recipe(path)
        if recipe.start:
            before = load_recipe(path.with_name(f"stage{int(path.stem[-1]) - 1}.toml"))
            assert recipe.start == f"{before.out}/model"
            assert recipe.model == before.model


def test_the_fourth_stage_makes_the_released_model() -> None:
    config = architecture(load_recipe(RECIPES / "umt224-7b/stage4.toml"))
    assert config == RELEASES["VideoChat-Flash-Qwen2-7B_res448"]


def test_step_counts_are_the_published_ones() -> None:
    """As the reference counts them."""
    assert steps_of(load_recipe(RECIPES / "umt224-7b/stage1.toml"), 1_039_000) == 2029
    assert steps_of(load_recipe(RECIPES / "umt224-7b/stage3.toml"), 3_700_000) == 14453
    assert steps_of(load_recipe(RECIPES / "umt224-7b/stage3.toml"), 3) == 1
    assert steps_of(load_recipe(RECIPES / "umt224-7b/stage3.toml", ["steps=7"]), 3_700_000) == 7


# Reading.


def test_what_is_not_said_has_its_default(small: Path) -> None:
    assert load_recipe(small) == Recipe(
        out="run", model="flash-tiny", rates=Rates(connector=1e-3), data=(Source("a.json"),)
    )


def test_a_base_is_merged_table_by_table_and_data_replaced_as_a_whole(tmp_path: Path, small: Path) -> None:
    (tmp_path / "deeper").mkdir()
    written(tmp_path, f'base = "../{small.name}"\nseed = 1\n[rates]\ndecoder = 1e-4\n', "deeper/middle.toml")
    top = written(
        tmp_path, 'base = "deeper/middle.toml"\nseed = 2\n[[data]]\nannotation = "b.json"\nweight = 2\n', "top.toml"
    )
    recipe = load_recipe(top)
    assert (recipe.out, recipe.seed, recipe.rates) == ("run", 2, Rates(0.0, 1e-3, 1e-4))
    assert recipe.data == (Source("b.json", weight=2.0),)


def test_bases_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    first = written(tmp_path, 'base = "second.toml"', "first.toml")
    written(tmp_path, 'base = "first.toml"', "second.toml")
    with pytest.raises(ValueError, match=r"second.toml: base leads in a circle, back to .*first.toml"):
        load_recipe(first)


def test_changes_are_toml_or_bare_words(small: Path) -> None:
    changes = ["out=runs/x", "rates.tower=2e-6", "epochs = 3", "recompute=false", 'lora.parts=["tower"]', "model="]
    recipe = load_recipe(small, [*changes, "start=2024", "device=cuda:1", "out=2025"])
    assert (recipe.out, recipe.rates.tower, recipe.epochs, recipe.recompute) == ("2025", 2e-6, 3, False)
    assert (recipe.lora.parts, recipe.start, recipe.device, recipe.model) == (("tower",), "2024", "cuda:1", "")
    assert load_recipe(small, ['data=[{annotation="c.json"}]']).data == (Source("c.json"),)


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
RATE = st.floats(0, 1, allow_subnormal=False)
RECIPE = st.builds(
    Recipe,
    out=TEXT.filter(str.strip),
    model=st.sampled_from(sorted(MODELS)),
    tower=TEXT,
    seed=st.integers(0, 2**40),
    recompute=st.booleans(),
    loss=st.sampled_from(["sample", "token"]),
    mixture=TEXT,
    train_with_dropout=st.sampled_from(["", "off", "2:0.5"]),
    rates=st.builds(Rates, RATE, st.just(1e-3), RATE),
    optimizer=st.builds(Optimizer, eps=st.floats(1e-12, 1e-3), clip=st.floats(0.1, 1e9)),
    video=st.builds(Video, min_frames=st.just(4), max_frames=st.integers(1, 500).map(lambda n: 4 * n)),
    lora=st.builds(Lora, rank=st.integers(1, 99)),
    data=st.lists(st.builds(Source, TEXT.filter(str.strip), TEXT, name=TEXT), min_size=1, max_size=3).map(tuple),
)


@given(RECIPE)
def test_what_is_resolved_is_read_back(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.getbasetemp() / "resolved.toml"
    path.write_bytes(resolved(recipe).encode())
    assert load_recipe(path) == recipe


def test_resolved_says_every_key(small: Path) -> None:
    drawn = replace(load_recipe(small), data=(Source(world=World("clips", count=3)),))
    text = resolved(drawn)
    assert all(f"{key.rpartition('.')[2]} = " in text for key in SCHEMA.known())
    assert "data = []" in resolved(replace(load_recipe(small), data=()))


@pytest.mark.parametrize("path", STAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_stage_is_read_back(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert load_recipe(written(tmp_path, resolved(recipe))) == recipe


def test_every_field_can_be_told_apart() -> None:
    """Reading knows these types alone."""
    for table in (Recipe, Rates, Optimizer, Video, Lora, Source, World):
        for one in fields(table):
            kinds = ("str", "int", "float", "bool", "Literal", "tuple[", "Span")
            kinds += ("Rates", "Optimizer", "Video", "Lora", "World")
            assert is_dataclass(table) and str(one.type).startswith(kinds), one


# What is refused.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sed=1", "unknown key 'sed': did you mean 'seed'?"),
        ("rates.towr=1e-6", "unknown key 'rates.towr': did you mean 'rates.tower'?"),
        ("weight_decay=0.1", "unknown key 'weight_decay': did you mean 'optimizer.weight_decay'?"),
        ("base=x", "unknown key 'base'"),
        ("optimiser.clip=1", "unknown key 'optimiser': did you mean 'optimizer"),
        ("rates.tower.low=1", "table.key=value"),
        ("seed", "table.key=value"),
        ("seed=many", "seed must be a whole number, not 'many'"),
        ("seed=1.5", "seed must be a whole number"),
        ("seed=true", "seed must be a whole number"),
        ("recompute=1", "recompute must be true or false"),
        ("rates=1", "rates must be a table"),
        ("rates.tower=-1e-6", "rates.tower must be 0 or more"),
        ("rates.tower=nan", "rates.tower must be a finite number"),
        ("rates.tower=inf", "rates.tower must be a finite number"),
        ("rates.connector=0", "nothing would train"),
        ("lora.parts=decoder", "lora.parts must be a list"),
        ('lora.parts=["head"]', "lora.parts must be a list of decoder and tower"),
        ('lora.parts=["tower", "tower"]', "each at most once"),
        ("lora.parts=[1]", "lora.parts must be text"),
        ('lora.parts=["decoder"]', "adapters learn at their part's rate"),
        ("lora.dropout=1", "lora.dropout must be from 0 to below 1"),
        ("video.min_frames=6", "video.min_frames must be a multiple of 4"),
        ("video.max_frames=0", "video.max_frames must be a multiple of 4"),
        ("video.max_frames=32", "video.min_frames 64 is more than video.max_frames 32"),
        ("video.sampling=random", "video.sampling must be 'dynamic' or 'middle'"),
        ("precision=float16", "precision must be 'bfloat16' or 'float32'"),
        ("data=[]", "no data: add a [[data]] table or name a mixture"),
        ("data=x", "data must be a list of tables"),
        ("data.weight=2", "data must be a list of tables"),
        ('data=[{media="x"}]', "needs an annotation or a world"),
        ('data=[{annotation="x", world={kind="clips", count=1}}]', "one of the two"),
        ('data=[{world={kind="clips"}}]', "count of conversations"),
        ('data=[{world={kind="clips", count=1, clips=[3, 2]}}]', "fewest and most"),
        ('data=[{world={kind="videos", count=1, clips=[0, 2]}}]', "fewest and most, at least 1"),
        ('data=[{world={kind="videos", count=1, skipped=[60, 12]}}]', "fewest and most"),
        ('data=[{world={kind="videos", count=1, characters="1Z"}}]', "some of 0123456789"),
        ('data=[{world={kind="videos", count=1, kinds=["colors"]}}]', "a list of character, colour"),
        ('data=[{world={kind="clips", count=1, characters="17"}}]', "frames and clips show all"),
        ('data=[{world={kind="clips", count=1, shapes=["star"]}}]', "frames and clips show all"),
        ('data=[{world={kind="videos", count=1, colours=["pink"]}}]', "some of red, orange"),
        ('data=[{world={kind="videos", count=1, chains=1}}]', "at least 2: one to follow, and decoys"),
        ('data=[{world={kind="videos", count=1, kinds=["hop_colour"]}}]', "set data.world.hops, as [1, 3]"),
        ('data=[{world={kind="videos", count=1, hops=[1, 2], pointers=0.0}}]', "set data.world.pointers above 0"),
        ('data=[{world={kind="clip", count=1}}]', "data.world.kind must be"),
        (
            'data=[{world={kind="clips", count=1, talk=0, patches=9}}, {world={kind="clips", count=1, talk=0.5}}]',
            "data.world.patches: frames, and clips, that are only looked at need the same number",
        ),
        ("teach=1.0", "teach is for worlds"),
        ("heads=heads.safetensors", "set teach above 0"),
        ('data=[{name="a", annotation="x"}, {name="a", annotation="y"}]', "have one name"),
        ('data=[{world={kind="clips", count=1, talk=0.5}}]', "teaches nothing without teach"),
        ('optimizer.kind="sgd"', "optimizer.kind must be 'adamw' or 'muon'"),
        ('data=[{annotation="x", strategy="some"}]', "data.strategy must be all, or as first:25%"),
        ('data=[{annotation="x", weight=0}]', "data.weight must be above 0"),
        ('data=[{annotation="x", json_path="y"}]', "unknown key 'data.json_path'"),
        ("model=flash-tyny", "model must be one of flash-tiny"),
        ("model=", "no model: name model, start or both"),
        ("image_size=100", "image_size: image_size 100 must be a multiple of patch 16"),
        ("log_scaled_from=1", "log_scaled_from must be 0 or at least 2"),
        ("train_with_dropout=2", "is not layer:ratio pairs"),
        ("train_with_dropout=9:0.5", "dropout before layer 9"),
        ("max_bad_share=2", "max_bad_share must be a share from 0 to 1"),
        ("device=gpu", "device must be auto, cpu, mps, cuda or cuda:1"),
        ("batch=0", "batch must be at least 1"),
        ("out=", "out must be a path"),
    ],
)
def test_a_change_that_cannot_be_followed_is_told_in_one_line(small: Path, change: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_recipe(small, [change])
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert message.startswith((f"--set {change}: ", f"{small}: "))


def test_a_whole_model_and_parts_exclude_each_other(small: Path) -> None:
    with pytest.raises(ValueError, match="start is a whole model already: drop tower and decoder, or start"):
        load_recipe(small, ["start=a", "tower=b", "decoder=c"])


def test_a_blend_is_of_what_was_begun_with(small: Path) -> None:
    with pytest.raises(ValueError, match="blend mixes with a model that was begun with: name it as start"):
        load_recipe(small, ["blend=0.5", "start="])
    with pytest.raises(ValueError, match="blend must be a share above 0, up to 1"):
        load_recipe(small, ["blend=0"])


def test_dropout_needs_questions(small: Path) -> None:
    with pytest.raises(ValueError, match="template plain has none"):
        load_recipe(small, ["template=plain", "train_with_dropout=2:0.5"])


def test_a_learned_position_table_is_not_resized(small: Path) -> None:
    model = "VideoChat-Flash-Qwen2_5-7B_InternVideo2-1B"
    with pytest.raises(ValueError, match="image_size 448: the position table of internvideo2 is learned for 224"):
        load_recipe(small, [f"model={model}", "image_size=448"])


def test_a_start_of_another_width_is_told() -> None:
    recipe = Recipe("run", model="VideoChat-Flash-Qwen2-7B_res224", start="there")
    other = RELEASES["VideoChat-Flash-Qwen2_5-2B_res448"]
    with pytest.raises(ValueError, match="start there holds another model: its decoder has vocab 151936, not 152064"):
        architecture(recipe, other)
    assert architecture(replace(recipe, model=""), other) == other
    million = RELEASES["VideoChat-Flash-Qwen2_5-7B-1M_res224"]  # the same shapes, other positions
    with pytest.raises(ValueError, match=r"its decoder has rope_theta 10000000.0, not 1000000.0"):
        architecture(recipe, million)
    with pytest.raises(ValueError, match="sees 448 pixels, .* 224: say which with image_size"):
        architecture(recipe, RELEASES["VideoChat-Flash-Qwen2-7B_res448"])
    same = RELEASES["VideoChat-Flash-Qwen2-7B_res224"]
    assert architecture(replace(recipe, image_size=448), same) == RELEASES["VideoChat-Flash-Qwen2-7B_res448"]
    scaled = architecture(replace(recipe, log_scaled_from=640), same).llm
    assert scaled == replace(same.llm, log_scaled_from=640)
    assert architecture(recipe, replace(same, llm=scaled)).llm == scaled, "0 is the start's"
    with pytest.raises(ValueError, match="no model"):
        architecture(Recipe("run", start="there"))
    with pytest.raises(ValueError, match="dropout before layer 28"):
        architecture(replace(recipe, model="", train_with_dropout="28:0.5"), same)


def test_errors_name_the_file_that_they_are_in(tmp_path: Path) -> None:
    below = written(tmp_path, SMALL + "[lora]\nrang = 3\n", "below.toml")
    top = written(tmp_path, 'base = "below.toml"\n')
    with pytest.raises(ValueError) as caught:
        load_recipe(top)
    assert str(caught.value) == f"{below}: unknown key 'lora.rang': did you mean 'lora.rank'?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("out = ", "is not TOML"),
        ("out = 1\nout = 2", "is not TOML"),
        ("base = 3", "base must be text"),
        ("batch = 2", "out is missing"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=said) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recipe .*missing.toml: name a .toml file"):
        load_recipe(tmp_path / "missing.toml")
    path = written(tmp_path, 'base = "none.toml"')
    with pytest.raises(FileNotFoundError, match=r"none.toml, the base of .*recipe.toml"):
        load_recipe(path)
    (tmp_path / "latin.toml").write_bytes(b'out = "\xe9"')
    with pytest.raises(ValueError, match="is not TOML"):
        load_recipe(tmp_path / "latin.toml")
