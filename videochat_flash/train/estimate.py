"""What a recipe will take: parameters, steps, floating-point operations, memory and time. No weights, no data.

Operations of a forward are counted in ``cost.py``, attention as a full square. A backward pass costs one forward for
gradients of what flows through and one more for gradients of weights that learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ..config import Config, Plan
from ..cost import GPUS, Flops, Sample, connector_flops, decoder_flops, gpu_named, tower_flops
from ..model import VideoChatFlashModel
from ..weights import skeleton
from .recipe import PARTS, Recipe, steps_of
from .samples import visual_rows

TEXT_ROWS = 256  # ours: rows of text in a conversation, all of them learned, where no data is read
MFU = 0.35  # ours: share of the peak that training reaches; good runs on one node lie between 0.3 and 0.5
Counts = Mapping[str, int]


@dataclass(frozen=True)
class Estimate:
    """What a training takes. Bytes are for each GPU, operations for all of them together."""

    trained: Counts  # parameters by part; adapters count in their part
    frozen: Counts
    sample: Sample
    steps: int | None  # None: neither the recipe nor the records tell
    rows: int  # of a step whose conversations are all the largest
    flops: Mapping[str, float]  # of such a step, by part
    memory: Mapping[str, float]  # bytes, by what holds them
    memory_kept: float  # bytes in all if activations were kept instead of recomputed, or the other way round
    gpu: str
    gpus: int
    mfu: float
    recompute: bool
    step_seconds: float

    @property
    def seconds(self) -> float | None:
        """Of the whole training, at most: every conversation is taken as the largest."""
        return None if self.steps is None else self.steps * self.step_seconds

    @property
    def fits(self) -> bool:
        return sum(self.memory.values()) <= GPUS[self.gpu].gigabytes * 1e9


def estimate(
    recipe: Recipe, config: Config, records: int | None = None, gpu: str = "H100", gpus: int = 1, mfu: float = MFU
) -> Estimate:
    """What the recipe takes on so many GPUs.

    Args:
        config: the model, as ``recipe.architecture`` gives it.
        records: conversations of one epoch; None where the data is not read.
        gpu: a name of GPUS, whatever its case.
        mfu: the share of the GPU's peak that is reached.

    Raises:
        ValueError: an unknown GPU, or numbers that no machine has.
    """
    name = gpu_named(gpu)
    if gpus < 1 or not 0 < mfu <= 1:
        raise ValueError(f"an estimate needs 1 GPU or more and 0 < mfu <= 1, not {gpus} and {mfu}")
    trained, frozen = parameters(recipe, config)
    sample = largest_sample(recipe, config)
    flops = {part: one * recipe.batch for part, one in training_flops(recipe, config, sample).items()}
    peak = GPUS[name].bfloat16 if recipe.precision == "bfloat16" else GPUS[name].float32
    memory = memory_bytes(recipe, config, sample, gpus, recipe.recompute)
    other = memory_bytes(recipe, config, sample, gpus, not recipe.recompute)
    return Estimate(
        trained,
        frozen,
        sample,
        recipe.steps or (None if records is None else steps_of(recipe, records)),
        sample.rows * recipe.batch,
        flops,
        memory,
        sum(other.values()),
        name,
        gpus,
        mfu,
        recipe.recompute,
        sum(flops.values()) / (gpus * peak * 1e12 * mfu),
    )


# -- parameters --------------------------------------------------------------------------------------------------------


def modules(model: VideoChatFlashModel) -> dict[str, list[nn.Module | nn.Parameter]]:
    """What belongs to each part: the head is the decoder's, the newline the connector's."""
    newline = [] if model.newline is None else [model.newline]
    head = [] if model.head is None else [model.head]
    return {"tower": [model.vision], "connector": [model.connector, *newline], "decoder": [model.decoder, *head]}


def _size(thing: nn.Module | nn.Parameter) -> int:
    return thing.numel() if isinstance(thing, nn.Parameter) else sum(p.numel() for p in thing.parameters())


def parameters(recipe: Recipe, config: Config) -> tuple[Counts, Counts]:
    """Trained and frozen parameters by part, from shapes alone.

    A part with adapters keeps its own weights frozen and trains rank * (inputs + outputs) for every linear layer of
    its blocks.
    """
    model = skeleton(config)
    trained: dict[str, int] = {}
    frozen: dict[str, int] = {}
    blocks = {"tower": model.vision.blocks, "decoder": model.decoder.layers}
    for part, held in modules(model).items():
        count = sum(_size(one) for one in held)
        if part in recipe.lora.parts:
            layers = [one for one in blocks[part].modules() if isinstance(one, nn.Linear)]
            trained[part] = sum(recipe.lora.rank * (one.in_features + one.out_features) for one in layers)
            frozen[part] = count
        else:
            learns = vars(recipe.rates)[part] > 0
            trained[part], frozen[part] = (count, 0) if learns else (0, count)
    return trained, frozen


# -- operations --------------------------------------------------------------------------------------------------------


def largest_sample(recipe: Recipe, config: Config) -> Sample:
    """The most rows that a conversation with one video or one image can have, TEXT_ROWS of text among them."""
    worlds = [source.world for source in recipe.data if source.world.kind]
    if worlds and len(worlds) == len(recipe.data):
        shapes = [(*world.span, world.tokens if world.kind == "videos" else 0) for world in worlds]
    else:
        tiles = 1 if recipe.tiles == 1 else 1 + recipe.tiles**2  # the whole image, then its tiles
        length = config.vision.clip_frames
        shapes = [(recipe.video.max_frames // length, length, 0), (tiles, 1, 0)]
    some = (Sample(clips, n, visual_rows(config, clips, n, tokens), TEXT_ROWS) for clips, n, tokens in shapes)
    return max(some, key=lambda sample: sample.rows)


def forward_flops(config: Config, sample: Sample, plan: Plan = ()) -> dict[str, Flops]:
    """One conversation through each part."""
    return {
        "tower": tower_flops(config.vision, sample.frames) * sample.clips,
        "connector": connector_flops(config, sample.frames) * sample.clips,
        "decoder": decoder_flops(config.llm, sample, plan),
    }


def training_flops(recipe: Recipe, config: Config, sample: Sample) -> dict[str, float]:
    """One conversation forward and backward, by part.

    The gradient flows down to the lowest part that learns: a part below it runs forward alone, a frozen part above it
    passes the gradient on; a world of videos passed the tower before. Recomputation runs tower blocks and decoder
    layers forward once more where it flows. What adapters themselves compute is left out: about 2 % at rank 64.
    """
    needed = {}
    flows = False
    for part, one in forward_flops(config, sample, recipe.plan).items():
        learns = vars(recipe.rates)[part] > 0
        adapted = part in recipe.lora.parts
        seen = part == "tower" and any(source.world.kind == "videos" for source in recipe.data)
        flops = 0.0 if seen else one.total
        if learns or flows:
            passed = one.activations if part != "connector" else 0.0  # the matching has no gradient
            flops += one.weights + 2 * passed + (one.weights if learns and not adapted else 0.0)
            flops -= _once(config, part, sample) if part == "tower" else 0.0  # pixels need no gradient
            flops += one.total - _once(config, part, sample) if recipe.recompute and part != "connector" else 0.0
        flows = flows or learns
        needed[part] = flops
    if not flows:
        raise ValueError("nothing would train: set a rate in [rates] above 0")
    return needed


def _once(config: Config, part: str, sample: Sample) -> float:
    """Operations outside the blocks, which nothing recomputes."""
    if part == "decoder":
        return 2 * sample.text * config.llm.width * config.llm.vocab
    return 2 * sample.clips * sample.frames * config.vision.patches * 3 * config.vision.patch**2 * config.vision.width


# -- memory ------------------------------------------------------------------------------------------------------------


def memory_bytes(recipe: Recipe, config: Config, sample: Sample, gpus: int, recompute: bool) -> dict[str, float]:
    """Bytes on each GPU.

    weights: float32, 4 each, shared among the GPUs. gradients: float32, of what learns. moments: AdamW's two.
    working copies: in bfloat16; on one GPU at most of all weights (autocast), on several of two units as large as the
    largest, one in use and one on its way (FSDP2).
    activations: of one forward of ``pack`` rows, see ``activation_bytes``.
    """
    trained, frozen = (sum(counts.values()) for counts in parameters(recipe, config))
    shards = 1 if recipe.optimizer.kind == "muon" else gpus  # which needs whole matrices on each
    width = 2 if recipe.precision == "bfloat16" else 4
    gathered = 2 * width * _largest_unit(config)
    copies = gathered if shards > 1 else 2 * (trained + frozen) if width == 2 else 0
    together = max(1, min(recipe.pack // sample.rows, -(-recipe.batch // gpus)))  # conversations in one forward
    return {
        "weights": 4 * (trained + frozen) / shards,
        "gradients": 4 * trained / shards,
        "moments": 8 * trained / shards,
        "working_copies": copies,
        "activations": together * activation_bytes(recipe, config, sample, width, recompute),
    }


def _largest_unit(config: Config) -> int:
    """Parameters that are gathered together: a block, or everything outside the blocks."""
    model = skeleton(config)
    blocks = [*model.vision.blocks, *model.decoder.layers]
    sizes = [_size(one) for one in blocks]
    return max(*sizes, _size(model) - sum(sizes))


def activation_bytes(recipe: Recipe, config: Config, sample: Sample, width: int, recompute: bool) -> float:
    """What one conversation's forward holds for its backward, with arithmetic of ``width`` bytes.

    Measured on saved tensors under autocast, bytes. A row in a decoder layer: 16 E (two norms, in and out, float32),
    10 E (bfloat16 copies for five products) and ``width`` times 3 N H + 2 K H + 4 ffn. A patch in a tower block: 16 D
    (InternVideo2 48 D) + 4 mlp, twice that in float32; in merging, 16 D. A learned row: 12 V (scores, softmax and
    gradient). Recomputation holds the input of each block and all of the one at work. A tower that no gradient reaches
    holds one block's, for as long as it runs.
    """
    llm, vision = config.llm, config.vision
    patches = sample.clips * sample.frames * vision.patches
    heads = llm.head_width * (3 * llm.heads + 2 * llm.kv_heads)
    casts = 10 * llm.width if width == 2 else 0
    layer = (16 * llm.width + casts + width * (heads + 4 * llm.ffn)) * sample.rows
    norms = 16 if vision.kind == "umt" else 48
    block = width / 2 * (norms * vision.width + 4 * vision.mlp_width) * patches
    decoder = layer + 4 * llm.width * sample.rows * llm.layers if recompute else layer * llm.layers
    tower = block
    if recipe.rates.tower > 0:
        tower = block + width * vision.width * patches * vision.depth if recompute else block * vision.depth
        tower += 16 * vision.width * patches
    return decoder + tower + 12 * sample.text * llm.vocab


# -- words -------------------------------------------------------------------------------------------------------------


def facts(made: Estimate) -> dict[str, object]:
    """An estimate as a table's rows, or as JSON."""
    gigabytes = {name: f"{held / 1e9:.1f} GB" for name, held in made.memory.items()}
    needed, has = sum(made.memory.values()) / 1e9, GPUS[made.gpu].gigabytes
    advice = "" if made.fits else ": lower pack or video.max_frames, take more GPUs, or lora.parts"
    days = None if made.seconds is None else made.seconds / 86400
    kind = "image" if made.sample.frames == 1 else "video"
    total = sum(made.flops.values())
    return {
        "trained_parameters": {part: made.trained[part] for part in PARTS},
        "frozen_parameters": {part: made.frozen[part] for part in PARTS},
        "steps": "unknown: the data was not read" if made.steps is None else made.steps,
        "largest_sample": f"{made.sample.visual:,} rows of {kind} and {made.sample.text} of text (assumed)",
        "rows_per_step": made.rows,
        "flops_per_step": f"{total:.3g} (" + ", ".join(f"{p} {n / total:.0%}" for p, n in made.flops.items()) + ")",
        "memory_per_gpu": f"{needed:.1f} GB of {has:g} GB" + ("" if made.fits else f", too much{advice}"),
        "memory_by_use": gigabytes,
        f"memory_{'without' if made.recompute else 'with'}_recompute": f"{made.memory_kept / 1e9:.1f} GB",
        "time": f"{made.step_seconds:.3g} s a step"
        + ("" if days is None else f", {days:.2g} days in all" if days >= 1 else f", {days * 24:.2g} hours in all"),
        "assumed": f"{made.gpus} x {made.gpu} at {made.mfu:.0%} of the peak; every conversation is the largest, "
        "so real data takes less; attention counted as a full square, recomputation counted",
    }
