"""Checkpoints in the released layout: finding, reading strictly, writing. No code of theirs runs."""

from __future__ import annotations

import difflib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined]
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from .config import RELEASE_OWNER, RELEASES, Config
from .files import beside
from .generate import Decoding
from .model import VideoChatFlashModel
from .prompt import plain_text
from .released import config_from_json, config_to_json

EMBEDDED = "flash-tiny"
ASSETS = Path(__file__).parent / "assets"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SHARD_BYTES = 5_000_000_000
CHECKED = 1 << 20  # values whose finiteness is looked at together: the check itself must need no memory
INDEX = "model.safetensors.index.json"
WANTED = ("*.json", "*.txt", "*.safetensors")

# Our names -> released names, by prefix. The longest prefix wins.
PREFIXES = {
    "vision.": "model.vision_tower.vision_tower.",
    "connector.": "model.mm_projector.",
    "decoder.": "model.",
    "head.": "lm_head.",
    "newline": "model.frame_newline",
}
UMT_PREFIX = "model.vision_tower.vision_tower.encoder."  # UMT's wrapper adds a level

# The Qwen2 way of cutting text before byte-level BPE.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def find(name_or_path: str | Path, revision: str | None = None, wanted: Sequence[str] = WANTED) -> Path:
    """The folder of a model: the embedded one, a folder, or a released name fetched through huggingface_hub.

    ``wanted``: patterns of the files to fetch.

    Raises:
        FileNotFoundError: neither a folder nor a known name, or a name that cannot be fetched.
        ValueError: a file instead of a folder.
    """
    name = str(name_or_path)
    path = ASSETS / name if name == EMBEDDED else Path(os.path.expanduser(name))  # an unknown ~user stays as it is
    if path.is_dir():
        return path
    if path.suffix in PICKLES:
        raise ValueError(f"{path} is a pickle, which could run code: 'vcflash convert {path} OUT' makes a safe one")
    if path.is_file():
        raise ValueError(f"{path} is a file: give the folder that holds config.json and the weights")
    short = name.removeprefix(f"{RELEASE_OWNER}/")
    if short not in RELEASES and name.count("/") != 1:
        near = difflib.get_close_matches(short, [EMBEDDED, *RELEASES], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"use {EMBEDDED}, a folder, or one of {', '.join(RELEASES)}"
        raise FileNotFoundError(f"no model {name!r}: {hint}")
    repository = f"{RELEASE_OWNER}/{short}" if short in RELEASES else name
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(wanted)))
    except LocalEntryNotFoundError:
        reason = "is not in the local cache and could not be fetched: check the network"
    except HfHubHTTPError as error:
        reason = f"(revision {revision or 'main'}) could not be fetched: HTTP {error.response.status_code}"
    except (HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:  # the last three are of hf_xet
        reason = f"could not be fetched to its end ({error}): run it again, which keeps the files that are whole"
    raise FileNotFoundError(f"{repository} {reason}")


def read_config(folder: Path) -> Config:
    """The Config of a model folder.

    Raises:
        FileNotFoundError: no config.json.
        ValueError: a config.json that does not describe a model of ours.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no config.json: it is not a model folder")
    return config_from_json(_read_json(path))


def read_decoding(folder: Path) -> Decoding:
    """How a model's generation_config.json wants tokens chosen; greedy where there is none or it does not sample."""
    path = folder / "generation_config.json"
    values = {key: one for key, one in (_read_json(path) if path.is_file() else {}).items() if one is not None}
    eos = values.get("eos_token_id", ())
    sampled = values.get("do_sample", False)
    return Decoding(
        max_new_tokens=values.get("max_new_tokens", 1024),
        temperature=values.get("temperature", 1.0) if sampled else 0.0,
        top_p=values.get("top_p", 1.0) if sampled else 1.0,
        top_k=values.get("top_k", 0) if sampled else 0,
        repetition_penalty=values.get("repetition_penalty", 1.0),
        eos=tuple(eos) if isinstance(eos, list) else (eos,) if isinstance(eos, int) else (),
    )


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder: tokenizer.json, or Qwen's vocab.json and merges.txt with its added tokens."""
    whole = folder / "tokenizer.json"
    if whole.is_file():
        values = _read_json(whole)  # the library ends with a bare Exception, which nobody could tell from a bug
        missing = {"vocab", "merges"} - values.get("model", {}).keys()
        if missing:
            raise ValueError(f"{whole} holds no {' and no '.join(sorted(missing))}: it is damaged")
        return plain_text(Tokenizer.from_file(str(whole)))
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise FileNotFoundError(f"{folder} has no tokenizer: tokenizer.json, or vocab.json and merges.txt, are needed")
    tokenizer = byte_level(Tokenizer(models.BPE.from_file(str(vocabulary), str(merges))))
    settings = folder / "tokenizer_config.json"
    added = _read_json(settings).get("added_tokens_decoder", {}) if settings.is_file() else {}
    for _, token in sorted(added.items(), key=lambda item: int(item[0])):
        tokenizer.add_special_tokens([AddedToken(token["content"], normalized=False, special=True)])
    return plain_text(tokenizer)


def byte_level(tokenizer: Tokenizer) -> Tokenizer:
    """Give a BPE model Qwen2's normaliser, cutting and byte alphabet."""
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def released_name(ours: str, config: Config) -> str:
    """The released key of one of our parameters."""
    for prefix, released in PREFIXES.items():
        if ours.startswith(prefix):
            if prefix == "vision." and config.vision.kind == "umt":
                released = UMT_PREFIX
            return released + ours[len(prefix) :]
    raise AssertionError(f"{ours} has no released name")


def skeleton(config: Config) -> VideoChatFlashModel:
    """The full-size model without memory: shapes only."""
    with torch.device("meta"):
        return VideoChatFlashModel(config)


def load_model(
    folder: Path, config: Config, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> VideoChatFlashModel:
    """Build the model and stream its tensors to ``dtype`` (None: as stored) and ``device``, one at a time.

    Raises:
        FileNotFoundError: no weights, or a missing shard.
        ValueError: missing, unexpected or misshapen keys (the first ten are listed), or values that are no numbers.
    """
    model = skeleton(config)
    ours = {released_name(name, config): name for name in model.state_dict()}
    shapes = {key: tuple(model.state_dict()[name].shape) for key, name in ours.items()}
    files = weight_files(folder)
    _check_keys(folder, files, shapes, config)
    loaded: dict[str, Tensor] = {}
    for key, tensor in stream_tensors(files):
        if key in ours:  # lm_head of a tied model may be stored and is not needed
            if not tensor.is_floating_point() or tensor.itemsize < 2:
                raise ValueError(f"{key} in {folder} is {tensor.dtype}, not floating point of 16 or more bits")
            if not all(bool(torch.isfinite(part).all()) for part in tensor.flatten().split(CHECKED)):
                raise ValueError(f"{key} in {folder} holds values that are not finite: the checkpoint is damaged")
            loaded[ours[key]] = tensor.to(device=device, dtype=dtype or tensor.dtype, copy=True)
    model.load_state_dict(loaded, assign=True)
    return model.requires_grad_(False).eval()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model's weights."""
    index, single = folder / INDEX, folder / "model.safetensors"
    if index.is_file():
        places = _read_json(index).get("weight_map")
        if not isinstance(places, dict):
            raise ValueError(f"{index} has no weight_map: it is not the index of a sharded model")
        files = [folder / name for name in sorted(set(places.values()))]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise FileNotFoundError(f"{folder} lacks {', '.join(absent)}: fetch the model again")
        return files
    if single.is_file():
        return [single]
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise ValueError(
            f"{folder} holds {pickles[0]}, a pickle, which could run code: "
            f"make a safe copy with 'vcflash convert {folder / pickles[0]} OUT'"
        )
    raise FileNotFoundError(f"{folder} has no model.safetensors: it holds no weights")


def rename_layerscale(key: str) -> str:
    """LayerScale is spelled gamma in some copies."""
    return key.replace(".ls1.gamma", ".ls1.weight").replace(".ls2.gamma", ".ls2.weight")


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None


def _check_keys(folder: Path, files: Sequence[Path], shapes: Mapping[str, tuple[int, ...]], config: Config) -> None:
    found = {}
    for path in files:
        with _open(path) as file:
            found.update({rename_layerscale(key): tuple(file.get_slice(key).get_shape()) for key in file.keys()})  # noqa: SIM118
    if config.llm.tied:
        found.pop("lm_head.weight", None)
    both = sorted(shapes.keys() & found.keys())
    problems = {
        "missing": sorted(shapes.keys() - found.keys()),
        "unexpected": sorted(found.keys() - shapes.keys()),
        "misshapen": [f"{key} {found[key]} instead of {shapes[key]}" for key in both if found[key] != shapes[key]],
    }
    told = [
        f"{len(keys)} {what}: {', '.join(keys[:10])}{', ...' if len(keys) > 10 else ''}"
        for what, keys in problems.items()
        if keys
    ]
    if told:
        raise ValueError(
            f"the weights in {folder} do not fit its config.json ({'; '.join(told)}): check that both belong together"
        )


def stream_tensors(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of every file. Each is read through its own mapping, so that pages read before do not pile up."""
    for path in files:
        with _open(path) as file:
            keys = list(file.keys())
        for key in keys:
            with _open(path) as file:
                yield rename_layerscale(key), file.get_tensor(key)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object")
    return values


def save_model(
    folder: Path, model: VideoChatFlashModel, tokenizer: Tokenizer, decoding: Decoding, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write the released layout into a new folder: beside it first, then renamed.

    Raises:
        FileExistsError: the folder exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} exists and is not empty: choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        _write_weights(made, model, shard_bytes)
        dtype = {"torch_dtype": str(model.dtype)[len("torch.") :]}
        _write_json(made / "config.json", config_to_json(model.config) | dtype)
        _write_json(made / "generation_config.json", _decoding_to_json(decoding))
        tokenizer.save(str(made / "tokenizer.json"))
        if folder.exists():
            folder.rmdir()
        os.rename(made, folder)


def _write_weights(folder: Path, model: VideoChatFlashModel, shard_bytes: int) -> None:
    stored = model.state_dict().items()
    tensors = {released_name(name, model.config): t.detach().contiguous().cpu() for name, t in stored}
    shards: list[dict[str, Tensor]] = [{}]
    for key, tensor in tensors.items():
        if shards[-1] and sum(held.nbytes for held in shards[-1].values()) + tensor.nbytes > shard_bytes:
            shards.append({})
        shards[-1][key] = tensor
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if shards[1:] else "model.safetensors"
        with beside(folder / name) as part:
            save_file(shard, part, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, name)
    if shards[1:]:
        size = sum(t.nbytes for t in tensors.values())
        _write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _decoding_to_json(decoding: Decoding) -> dict[str, Any]:
    named = ["max_new_tokens", "repetition_penalty"] + ["temperature", "top_p", "top_k"] * (decoding.temperature > 0)
    values = {name: getattr(decoding, name) for name in named}
    return {"do_sample": decoding.temperature > 0, "eos_token_id": list(decoding.eos), **values}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
