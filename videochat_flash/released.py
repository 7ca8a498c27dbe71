"""The released ``config.json``, read strictly and written back."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .config import TOWERS, Config, LLMConfig, Plan, VisionConfig, Yarn, drop_plan

ARCHITECTURES = (
    "VideoChatFlashQwenForCausalLM",  # the releases
    "LlavaQwenForCausalLM_Flash",  # checkpoints of the training stages
    "LlavaQwenForCausalLM",
)
PROJECTOR = re.compile(r"tome([1-9]\d*)_mlp_hd64")  # the number: tokens per frame, 16 in the releases

# Keys that say something we hold fixed: any other value is refused.
_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "mm_vision_select_layer": (-2,),
    "mm_vision_select_feature": ("patch",),
    "vision_encode_type": ("video_image",),
    "mm_patch_merge_type": ("spatial_nopad", "flat"),
    "mm_use_im_start_end": (False,),
    "mm_use_im_patch_token": (False,),
    "attention_dropout": (0.0, 0),
    "use_sliding_window": (False,),  # full attention, whatever sliding_window says
}
# Keys of the releases and of every transformers config that change nothing here.
_IGNORED = frozenset(
    [
        "_name_or_path", "add_faster_video", "auto_map", "bos_token_id", "dtype", "dual_chunk_attention_config",
        "eos_token_id", "faster_token_stride", "force_sample", "frame_aspect_ratio", "frame_grid_pinpoints",
        "image_aspect_ratio", "image_crop_resolution", "image_grid_pinpoints", "image_split_resolution",
        "initializer_range", "max_num_pixels", "max_window_layers", "min_slow_num_frames", "mm_close_init",
        "mm_num_compress_latents", "mm_num_compress_query_type", "mm_pos_num_frames", "mm_projector_lr",
        "mm_resampler_type", "mm_spatial_pool_mode", "mm_spatial_pool_stride", "mm_spatial_pool_out_channels",
        "mm_tunable_parts", "mm_vision_tower_lr", "mm_compress_type", "model_type", "pad_token_id",
        "pos_skipping_range", "sliding_window", "tokenizer_model_max_length", "tokenizer_padding_side", "torch_dtype",
        "transformers_version", "use_cache", "use_mm_proj", "use_pos_skipping", "vision_tower_pretrained",
        "layer_types",
    ]
)  # fmt: skip
# The decoder's sizes: their names -> ours.
_LLM = {
    "vocab_size": "vocab",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "intermediate_size": "ffn",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "rms_eps",
    "max_position_embeddings": "max_positions",
    "tie_word_embeddings": "tied",
}
_YARN = {name: name for name in ("factor", "beta_fast", "beta_slow")}
_YARN["original_max_position_embeddings"] = "original_max_positions"
_NEEDED = frozenset([*_LLM, "architectures", "mm_vision_tower", "mm_hidden_size", "mm_projector_type"])
_OPTIONAL = frozenset(
    [
        "rope_scaling", "mm_local_num_frames", "mm_newline_position", "mm_llm_compress", "llm_compress_type",
        "llm_compress_layer_list", "llm_image_token_ratio_list", "vision_config", "mm_image_tokens", "log_scaled_from",
    ]
)  # fmt: skip


def config_from_json(values: Mapping[str, Any]) -> Config:
    """Read the released ``config.json``. What the model is comes from here alone, never from a name or a path.

    ``vision_config``, ``mm_image_tokens`` and ``log_scaled_from`` are our additions: what none of the releases has.

    Raises:
        ValueError: an unknown key (with its nearest known one), a missing key, or a value that we cannot honour.
    """
    _check_keys(values)
    tower = values["mm_vision_tower"]
    if "vision_config" not in values and tower not in TOWERS:
        raise ValueError(f"mm_vision_tower {tower!r} is not known: use one of {', '.join(TOWERS)}")
    vision = _tower(values["vision_config"]) if "vision_config" in values else TOWERS[tower]
    if values.get("mm_local_num_frames", 4) != vision.clip_frames:
        raise ValueError(f"mm_local_num_frames is {values['mm_local_num_frames']}, the tower's {vision.clip_frames}")
    if values["mm_hidden_size"] != vision.width:
        raise ValueError(f"mm_hidden_size is {values['mm_hidden_size']}, but the tower's width is {vision.width}")
    newline = values.get("mm_newline_position", "nothing")
    if newline not in ("nothing", "one_token"):
        raise ValueError(f"mm_newline_position {newline!r} is not supported: 'nothing' or 'one_token'")
    sizes = {ours: values[theirs] for theirs, ours in _LLM.items()} | {"rope_theta": float(values["rope_theta"])}
    sizes["log_scaled_from"] = values.get("log_scaled_from", 0)
    return Config(
        vision=vision,
        llm=LLMConfig(**sizes, yarn=_yarn(values.get("rope_scaling"), sizes["max_positions"])),
        tokens_per_frame=_tokens_per_frame(values["mm_projector_type"]),
        image_tokens=values.get("mm_image_tokens", 64),
        newline=newline,
        keep=_keep(values),
    )


def config_to_json(config: Config) -> dict[str, Any]:
    """The released ``config.json`` of a model; ``config_from_json`` reads it back to an equal Config."""
    llm, vision, sizes = config.llm, config.vision, asdict(config.llm)
    tower = next((name for name, released in TOWERS.items() if released == vision), None)
    kind, layers, ratios = plan_parts(config.keep)
    values: dict[str, Any] = {
        "architectures": [ARCHITECTURES[0]],
        "auto_map": {
            "AutoConfig": "modeling_videochat_flash.VideoChatFlashQwenConfig",
            "AutoModel": "modeling_videochat_flash.VideoChatFlashQwenForCausalLM",
        },
        "model_type": "videochat_flash_qwen",
        "hidden_act": "silu",
        **{theirs: sizes[ours] for theirs, ours in _LLM.items()},
        "rope_scaling": None,
        "mm_vision_tower": tower or vision.kind,
        "mm_hidden_size": vision.width,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": f"tome{config.tokens_per_frame}_mlp_hd64",
        "mm_local_num_frames": vision.clip_frames,
        "mm_patch_merge_type": "spatial_nopad",
        "mm_newline_position": config.newline,
        "vision_encode_type": "video_image",
        "mm_llm_compress": bool(config.keep),
        "llm_compress_type": kind,
        "llm_compress_layer_list": list(layers),
        "llm_image_token_ratio_list": [1.0, *ratios],
    }
    if llm.yarn is not None:
        values["rope_scaling"] = {"rope_type": "yarn"} | {theirs: sizes["yarn"][ours] for theirs, ours in _YARN.items()}
    if tower is None:
        values["vision_config"] = asdict(vision)
    if config.image_tokens != 64:
        values["mm_image_tokens"] = config.image_tokens
    if llm.log_scaled_from:
        values["log_scaled_from"] = llm.log_scaled_from
    return values


def plan_parts(plan: Plan) -> tuple[str, tuple[int, ...], tuple[float, ...]]:
    """Kind, layers and ratios of a plan: the inverse of ``drop_plan``.

    Raises:
        ValueError: a plan that no published kind describes.
    """
    layers, ratios = tuple(drop.layer for drop in plan), tuple(drop.ratio for drop in plan)
    for kind in ("attention", "uniform", "uniform0_attention", "uniform1_attention"):
        if drop_plan(kind, layers, ratios) == plan:
            return kind, layers, ratios
    raise ValueError(f"no published kind of dropout describes {plan}: uniform drops come first, at most two, or all")


def _check_keys(values: Mapping[str, Any]) -> None:
    known = _NEEDED | _OPTIONAL | _IGNORED | _FIXED.keys()
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ValueError(f"unknown key {key!r} in config.json" + (f": did you mean {near[0]!r}?" if near else ""))
        if key in _FIXED and value not in _FIXED[key]:
            raise ValueError(f"{key} is {value!r}, but only {' or '.join(map(repr, _FIXED[key]))} is supported")
    llm = LLMConfig(log_scaled_from=2, yarn=Yarn(4.0, 1))
    sound = config_to_json(Config(VisionConfig(image_size=32), llm, image_tokens=1))  # for every key, of the right type
    for key in sorted((_NEEDED | _OPTIONAL) & values.keys()):
        value, like = values[key], None if values[key] is None and key == "rope_scaling" else sound[key]
        kinds = (int, float) if isinstance(like, float) else type(like)
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(like, bool):
            raise ValueError(f"{key} in config.json is {value!r}, which is no {type(like).__name__}")
    missing = sorted(_NEEDED - values.keys())
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}: it is not the config of a VideoChat-Flash model")
    if not set(values["architectures"]) & set(ARCHITECTURES):
        raise ValueError(f"architectures is {values['architectures']}, not one of {', '.join(ARCHITECTURES)}")


def _tokens_per_frame(projector: str) -> int:
    found = PROJECTOR.fullmatch(projector)
    if found is None:
        raise ValueError(f"mm_projector_type {projector!r} is not known: tome16_mlp_hd64 and its like are supported")
    return int(found[1])


def _tower(values: Mapping[str, Any]) -> VisionConfig:
    known = vars(VisionConfig())
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r} in vision_config: its keys are {', '.join(known)}")
    if any(type(one) is not type(known[key]) or (type(one) is int and one < 1) for key, one in values.items()):
        raise ValueError(f"vision_config {dict(values)} holds what is no size above 0")
    return VisionConfig(**values)


def _yarn(values: Mapping[str, Any] | None, positions: int) -> Yarn | None:
    if values is None:
        return None
    known = {"rope_type", "type", *_YARN}
    given = {ours: values[theirs] for theirs, ours in _YARN.items() if theirs in values}
    sound = values.get("rope_type", values.get("type")) == "yarn" and known >= values.keys() and "factor" in given
    if not sound or not all(type(one) in (int, float) and one > 0 for one in given.values()):
        raise ValueError(f"rope_scaling {dict(values)} is not supported: only yarn, by {', '.join(sorted(known))}")
    return Yarn(**{"original_max_positions": positions, **given})


def _keep(values: Mapping[str, Any]) -> Plan:
    if not values.get("mm_llm_compress", False):
        return ()
    layers = values.get("llm_compress_layer_list", (8, 16, 24))
    ratios = values.get("llm_image_token_ratio_list", (1.0, 0.5, 0.25, 0.125))
    if ratios[:1] not in ([1.0], (1.0,)):
        raise ValueError(f"llm_image_token_ratio_list must begin with 1.0: {list(ratios)}")
    return drop_plan(values.get("llm_compress_type", "attention"), tuple(layers), tuple(ratios[1:]))
