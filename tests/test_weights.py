"""Released layout: keys and shapes of the full-size models, strict loading, round trips, conversion, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import tiny
import torch
from command import run
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny import CONFIG, INTERNVIDEO2, tokenizer
from tokenizers import Tokenizer

from videochat_flash import weights
from videochat_flash.config import RELEASES, Config, Yarn, drop_plan
from videochat_flash.facts import manifest
from videochat_flash.generate import Decoding
from videochat_flash.model import VideoChatFlashModel
from videochat_flash.prompt import plain_text
from videochat_flash.released import config_from_json, config_to_json

TOWER = "model.vision_tower.vision_tower."


def umt_keys(width: int = 1024, mlp: int = 4096, blocks: int = 23) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of UMT-L, written out."""
    keys: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, 1, 16, 16),
        "patch_embed.proj.bias": (width,),
        "vision_layernorm.weight": (width,),
        "vision_layernorm.bias": (width,),
    }
    for i in range(blocks):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.q_bias": (width,),
            "attn.v_bias": (width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (mlp, width),
            "mlp.fc1.bias": (mlp,),
            "mlp.fc2.weight": (width, mlp),
            "mlp.fc2.bias": (width,),
        }.items():
            keys[f"blocks.{i}.{name}"] = shape
    return {f"{TOWER}encoder.{key}": shape for key, shape in keys.items()}


def internvideo2_keys() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of InternVideo2-1B, written out."""
    width, mlp = 1408, 6144
    keys: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1025, width),
        "img_pos_embed": (1, 257, width),
        "patch_embed.proj.weight": (width, 3, 1, 14, 14),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(39):
        for name, shape in {
            "norm1.weight": (width,),
            "norm2.weight": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "attn.q_norm.weight": (width,),
            "attn.k_norm.weight": (width,),
            "ls1.weight": (width,),
            "ls2.weight": (width,),
            "mlp.fc1.weight": (mlp, width),
            "mlp.fc1.bias": (mlp,),
            "mlp.fc2.weight": (width, mlp),
            "mlp.fc2.bias": (width,),
        }.items():
            keys[f"blocks.{i}.{name}"] = shape
    return {f"{TOWER}{key}": shape for key, shape in keys.items()}


def qwen_keys(width: int, ffn: int, kv: int, vocab: int, tied: bool) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the 28-layer decoders, and of the connector's language side."""
    keys: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    if not tied:
        keys["lm_head.weight"] = (vocab, width)
    for i in range(28):
        for name, shape in {
            "input_layernorm.weight": (width,),
            "post_attention_layernorm.weight": (width,),
            "self_attn.q_proj.weight": (width, width),
            "self_attn.q_proj.bias": (width,),
            "self_attn.k_proj.weight": (kv, width),
            "self_attn.k_proj.bias": (kv,),
            "self_attn.v_proj.weight": (kv, width),
            "self_attn.v_proj.bias": (kv,),
            "self_attn.o_proj.weight": (width, width),
            "mlp.gate_proj.weight": (ffn, width),
            "mlp.up_proj.weight": (ffn, width),
            "mlp.down_proj.weight": (width, ffn),
        }.items():
            keys[f"model.layers.{i}.{name}"] = shape
    return keys


def connector_keys(vision: int, llm: int) -> dict[str, tuple[int, ...]]:
    return {
        "model.mm_projector.mlp.0.weight": (llm, vision),
        "model.mm_projector.mlp.0.bias": (llm,),
        "model.mm_projector.mlp.2.weight": (llm, llm),
        "model.mm_projector.mlp.2.bias": (llm,),
    }


SMALL = qwen_keys(1536, 8960, 256, 151936, tied=True) | connector_keys(1024, 1536) | umt_keys()
LARGE = qwen_keys(3584, 18944, 512, 152064, tied=False) | connector_keys(1024, 3584) | umt_keys()
LARGE_IV2 = qwen_keys(3584, 18944, 512, 152064, tied=False) | connector_keys(1408, 3584) | internvideo2_keys()
EXPECTED = {
    "VideoChat-Flash-Qwen2_5-2B_res448": (SMALL, 1.838e9),
    "VideoChat-Flash-Qwen2-7B_res224": (LARGE, 7.923e9),
    "VideoChat-Flash-Qwen2-7B_res448": (LARGE, 7.923e9),
    "VideoChat-Flash-Qwen2_5-7B-1M_res224": (LARGE, 7.923e9),
    "VideoChat-Flash-Qwen2_5-7B_InternVideo2-1B": (LARGE_IV2, 8.621e9),
}


@pytest.mark.parametrize("name", RELEASES)
def test_every_key_and_shape_of_a_release(name: str) -> None:
    expected, parameters = EXPECTED[name]
    assert manifest(RELEASES[name]) == expected
    assert sum(map(prod, expected.values())) == pytest.approx(parameters, rel=2e-4)


def test_towers_have_the_published_counts() -> None:
    umt, iv2 = umt_keys(), internvideo2_keys()
    assert (len(umt), sum(map(prod, umt.values()))) == (303, 290_479_104)
    assert (len(iv2), sum(map(prod, iv2.values()))) == (512, 987_337_728)
    assert sum(map(prod, connector_keys(1408, 3584).values())) == 17_898_496


@pytest.mark.parametrize("name", RELEASES)
def test_config_json_of_a_release_reads_back(name: str) -> None:
    values = json.loads(json.dumps(config_to_json(RELEASES[name])))
    assert config_from_json(values) == RELEASES[name]


def test_the_released_file_with_all_its_vestigial_keys_is_read() -> None:
    values = config_to_json(RELEASES["VideoChat-Flash-Qwen2_5-7B-1M_res224"]) | {
        "mm_llm_compress": False, "llm_compress_type": "attention", "llm_compress_layer_list": [8, 16, 24],
        "llm_image_token_ratio_list": [1.0, 0.5, 0.25, 0.125], "sliding_window": 32768, "use_sliding_window": False,
        "max_window_layers": 28, "tokenizer_model_max_length": 32768, "tokenizer_padding_side": "right",
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model", "mm_vision_tower_lr": 2e-06,
        "dual_chunk_attention_config": {"chunk_size": 262144}, "image_aspect_ratio": "anyres_nopad", "use_cache": True,
        "frame_grid_pinpoints": None, "image_grid_pinpoints": [[224, 224]], "max_num_pixels": 14745600000,
        "transformers_version": "4.39.2", "torch_dtype": "bfloat16", "model_type": "qwen2", "attention_dropout": 0.0,
        "mm_pos_num_frames": 8, "use_mm_proj": True, "bos_token_id": 151643, "eos_token_id": 151645,
    }  # fmt: skip
    assert config_from_json(values) == RELEASES["VideoChat-Flash-Qwen2_5-7B-1M_res224"]


@pytest.mark.parametrize("architecture", ["LlavaQwenForCausalLM", "LlavaQwenForCausalLM_Flash"])
def test_training_stage_aliases_are_read(architecture: str) -> None:
    values = config_to_json(Config()) | {"architectures": [architecture], "model_type": "llava_qwen"}
    assert config_from_json(values) == Config()


def test_yarn_stretches_from_the_config_s_own_positions_where_it_names_none() -> None:
    scaled = {"max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 4.0}}
    assert config_from_json(config_to_json(Config()) | scaled).llm.yarn == Yarn(4.0, 4096)


def test_yarn_log_scaling_and_dropout_round_trip() -> None:
    config = Config(keep=drop_plan("uniform0_attention", (4, 18), (0.75, 0.25)))
    config = replace(config, llm=replace(config.llm, yarn=Yarn(4.0, 32768), log_scaled_from=640))
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hiden_size": 1}, "did you mean 'hidden_size'"),
        ({"mm_vision_tower": "clip"}, "umt-large"),
        ({"mm_projector_type": "linear"}, "tome16_mlp_hd64"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "only yarn"),
        ({"architectures": ["LlamaForCausalLM"]}, "architectures"),
        ({"mm_hidden_size": 7}, "1024"),
        ({"mm_newline_position": "frame"}, "one_token"),
        ({"log_scaled_from": 1}, "log_scaled_from 1 is no number of rows"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings in config.json is 'false', which is no bool"),
        ({"mm_llm_compress": "false"}, "mm_llm_compress"),
        ({"vocab_size": True}, "vocab_size"),
        ({"hidden_size": 256.0}, "hidden_size"),
        ({"hidden_size": "256"}, "hidden_size"),
        ({"rope_theta": None}, "rope_theta"),
        ({"architectures": None}, "architectures"),
        ({"mm_projector_type": None}, "mm_projector_type"),
        ({"mm_projector_type": "tome0_mlp_hd64"}, "tome0"),
        ({"num_attention_heads": 0}, "numbers above 0"),
        ({"mm_llm_compress": True, "llm_image_token_ratio_list": []}, "must begin with 1.0"),
        ({"vision_config": []}, "vision_config"),
        ({"vision_config": {"patch": 0}}, "no size above 0"),
        ({"vision_config": {"kind": 3}}, "no size above 0"),
        ({"rope_scaling": "yarn"}, "rope_scaling"),
        ({"rope_scaling": {"type": "yarn", "factor": "4"}}, "only yarn"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config_from_json(config_to_json(Config()) | change)


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model() -> VideoChatFlashModel:
    return tiny.model()


@pytest.fixture
def folder(tmp_path: Path, model: VideoChatFlashModel) -> Path:
    weights.save_model(tmp_path / "model", model, tokenizer(), Decoding(eos=(1, 2)))
    return tmp_path / "model"


def loaded(folder: Path) -> VideoChatFlashModel:
    return weights.load_model(folder, weights.read_config(folder))


def test_save_and_load_give_the_same_model(folder: Path, model: VideoChatFlashModel) -> None:
    again = loaded(folder).state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    assert weights.read_decoding(folder) == Decoding(eos=(1, 2))


def test_null_in_generation_config_is_what_is_not_said(folder: Path) -> None:
    nothing = {"temperature": None, "top_k": None, "max_new_tokens": None, "do_sample": True, "eos_token_id": 7}
    (folder / "generation_config.json").write_text(json.dumps(nothing))
    assert weights.read_decoding(folder) == Decoding(temperature=1.0, eos=(7,))


def test_what_a_tool_left_in_a_tokenizer_cuts_no_question(folder: Path) -> None:
    kept = Tokenizer.from_file(str(folder / "tokenizer.json"))
    kept.enable_truncation(3)
    kept.enable_padding(length=9)
    kept.save(str(folder / "tokenizer.json"))
    assert len(weights.read_tokenizer(folder).encode("What is it?").ids) not in (3, 9)


def test_shards_give_the_same_model(tmp_path: Path, model: VideoChatFlashModel) -> None:
    weights.save_model(tmp_path / "m", model, tokenizer(), Decoding(), shard_bytes=100_000)
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 2
    again = loaded(tmp_path / "m").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_a_full_disk_is_told_and_leaves_nothing(
    model: VideoChatFlashModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        weights.save_model(tmp_path / "m", model, tokenizer(), Decoding())
    assert not any(tmp_path.iterdir())


def test_others_may_read_what_was_saved(folder: Path) -> None:
    plain = folder / "config.json"
    assert (folder / "model.safetensors").stat().st_mode == plain.stat().st_mode


def test_dtype_is_converted_on_the_way(folder: Path) -> None:
    model = weights.load_model(folder, weights.read_config(folder), torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def rewrite(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Replace, add or (None) remove tensors of a folder."""
    tensors = load_file(folder / "model.safetensors") | change
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / "model.safetensors")


def test_layerscale_may_be_spelled_gamma_but_not_be_missing(tmp_path: Path) -> None:
    config = INTERNVIDEO2
    model = tiny.model(config)
    with torch.no_grad():
        model.vision.blocks[0].ls1.weight.fill_(0.5)  # type: ignore[union-attr]
    weights.save_model(tmp_path / "m", model, tokenizer(), Decoding())
    old = load_file(tmp_path / "m" / "model.safetensors")
    renamed = {k: None for k in old if ".ls" in k}
    gamma = {k.replace(".weight", ".gamma"): v for k, v in old.items() if ".ls" in k}
    rewrite(tmp_path / "m", {**renamed, **gamma})
    assert torch.equal(loaded(tmp_path / "m").vision.blocks[0].ls1.weight, torch.full((config.vision.width,), 0.5))  # type: ignore[union-attr]
    rewrite(tmp_path / "m", {k: None for k in gamma})
    with pytest.raises(ValueError, match=r"missing.*ls1\.weight"):
        loaded(tmp_path / "m")


def test_wrong_keys_are_listed(folder: Path) -> None:
    rewrite(
        folder,
        {"model.norm.weight": None, "model.extra": torch.zeros(1), "model.mm_projector.mlp.0.bias": torch.zeros(3)},
    )
    with pytest.raises(ValueError, match=r"1 missing: model\.norm\.weight") as caught:
        loaded(folder)
    text = str(caught.value)
    assert (
        "1 unexpected: model.extra" in text
        and "model.mm_projector.mlp.0.bias (3,) instead of" in text
        and "\n" not in text
    )


def test_only_ten_keys_are_listed(folder: Path) -> None:
    rewrite(folder, {f"x{i:02d}": torch.zeros(1) for i in range(14)})
    with pytest.raises(ValueError, match=r"14 unexpected: x00, .*x09, \.\.\.") as caught:
        loaded(folder)
    assert "x10" not in str(caught.value)


def test_tied_models_may_store_their_head(tmp_path: Path) -> None:
    config = replace(CONFIG, llm=replace(CONFIG.llm, tied=True))
    weights.save_model(tmp_path / "m", tiny.model(config), tokenizer(), Decoding())
    rewrite(tmp_path / "m", {"lm_head.weight": torch.zeros(config.llm.vocab, config.llm.width)})
    assert loaded(tmp_path / "m").head is None


def test_values_that_are_no_numbers_are_refused(folder: Path, model: VideoChatFlashModel) -> None:
    rewrite(folder, {"model.norm.weight": torch.full((model.config.llm.width,), float("nan"))})
    with pytest.raises(ValueError, match=r"model\.norm\.weight.*not finite"):
        loaded(folder)


def test_a_missing_shard_is_named(tmp_path: Path, model: VideoChatFlashModel) -> None:
    weights.save_model(tmp_path / "m", model, tokenizer(), Decoding(), shard_bytes=100_000)
    victim = sorted((tmp_path / "m").glob("model-*.safetensors"))[1]
    victim.unlink()
    with pytest.raises(FileNotFoundError, match=victim.name):
        loaded(tmp_path / "m")


def test_pickles_are_refused_with_a_hint(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="vcflash convert"):
        loaded(folder)


def test_a_broken_safetensors_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"model\.safetensors is not a readable"):
        loaded(folder)


def test_saving_never_overwrites(folder: Path, model: VideoChatFlashModel) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="not empty"):
        weights.save_model(folder, model, tokenizer(), Decoding())
    assert (folder / "model.safetensors").read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_names_that_are_no_models() -> None:
    with pytest.raises(FileNotFoundError, match="did you mean flash-tiny"):
        weights.find("flash-tyni")
    with pytest.raises(FileNotFoundError, match="VideoChat-Flash-Qwen2-7B_res224"):
        weights.find("nonsense")


def test_a_release_is_fetched_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(weights, "snapshot_download", lambda *a, **k: asked.append((a, k)) or str(tmp_path))
    assert weights.find("VideoChat-Flash-Qwen2-7B_res224", "v1") == tmp_path
    assert asked[0][0] == ("OpenGVLab/VideoChat-Flash-Qwen2-7B_res224",) and asked[0][1]["revision"] == "v1"


@pytest.mark.parametrize("kind", [HTTPError, RuntimeError, ConnectionError])  # of a ReadError, and of hf_xet's
def test_a_download_that_breaks_off_is_told_in_one_line(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise kind("peer closed connection")

    monkeypatch.setattr(weights, "snapshot_download", broken)
    done = run(capsys, "info", "someone/model")
    assert (done.code, done.out, len(done.lines)) == (1, "", 1)
    assert "someone/model could not be fetched to its end (peer closed connection): run it again" in done.err


def test_qwen_tokenizer_files_equal_tokenizer_json(tmp_path: Path) -> None:
    whole = plain_text(tokenizer())
    content = json.loads(whole.to_str())
    (tmp_path / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    merges = content["model"]["merges"]
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in merges))
    added = {str(t["id"]): {"content": t["content"]} for t in content["added_tokens"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    read = weights.read_tokenizer(tmp_path)
    for text in ("What digit is on the red star?", " 12 frames\n\n", "<|im_end|> typed"):
        assert read.encode(text).ids == whole.encode(text).ids
    assert read.token_to_id("<|im_end|>") == whole.token_to_id("<|im_end|>")


# -- memory ------------------------------------------------------------------------------------------------------------

MEASURE = """
import sys, torch
from pathlib import Path
from videochat_flash import weights
from videochat_flash.show import peak_megabytes
folder = Path(sys.argv[1])
config = weights.read_config(folder)
before = peak_megabytes()
weights.load_model(folder, config)
print(int((peak_megabytes() - before) * 2**20))
"""


@pytest.mark.slow
def test_loading_needs_little_more_memory_than_the_checkpoint(tmp_path: Path) -> None:
    """A synthetic checkpoint of about 1 GB, in shards, loaded in a process of its own."""
    small = CONFIG
    config = replace(small, llm=replace(small.llm, layers=8, width=2048, heads=16, kv_heads=2, ffn=8192, vocab=32000))
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in VideoChatFlashModel(config).state_dict().items()}
    with torch.device("meta"):
        model = VideoChatFlashModel(config).to(torch.bfloat16)
    model.load_state_dict({k: torch.full(s, 0.01, dtype=torch.bfloat16) for k, s in shapes.items()}, assign=True)
    weights.save_model(tmp_path / "m", model, tokenizer(), Decoding(), shard_bytes=400_000_000)
    del model
    size = sum(f.stat().st_size for f in (tmp_path / "m").glob("*.safetensors"))
    assert 0.8e9 < size < 1.4e9
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "m")], capture_output=True, text=True, check=True
    ).stdout
    assert int(out) <= 1.25 * size
