"""The Qwen2 decoder on a packed row axis, with visual rows dropped between layers (paper section 3.2).

Attention is a causal square over each conversation (prefill, training) or new rows against a cache (decoding). The
position of a new row in a layer is the length of that layer's cache, so layers of unequal length need no bookkeeping.
Nothing is remembered on a module: caches belong to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .attention import SHORT, attend
from .config import LLMConfig, Plan
from .dropout import Segment, choose

ROW_CHUNK = 8192  # rows that pass the MLP at once: its intermediate is the largest tensor of a long prefill
ROTATED = 4096  # rows that turn at once: in float32 all of them would be a prefill's largest tensors
PADDED = 1.5  # times the rows that a padded batch of conversations may hold
Tables = tuple[Tensor, ...]  # each "T H": cosine and sine for keys, then for queries


class LayerCache:
    """Keys and values of one conversation in one layer; its length is the number of rows held.

    Args:
        room: rows to reserve beyond the first ones, for the tokens to come.
    """

    def __init__(self, room: int = 0) -> None:
        self._room, self._length = room, 0
        self._held: Float[Tensor, "2 K capacity H"] | None = None

    def __len__(self) -> int:
        return self._length

    @property
    def bytes(self) -> int:
        """What it takes, reserved room included."""
        return 0 if self._held is None else self._held.nbytes

    def extend(
        self, keys: Float[Tensor, "K n H"], values: Float[Tensor, "K n H"]
    ) -> tuple[Float[Tensor, "K m H"], Float[Tensor, "K m H"]]:
        """Append rows and return all that are held."""
        start, end = self._length, self._length + keys.shape[1]
        if self._held is None or end > self._held.shape[2]:
            grown = keys.new_empty(2, keys.shape[0], end + max(self._room, start // 2), keys.shape[2])
            if self._held is not None:
                grown[:, :, :start] = self._held[:, :, :start]
            self._held = grown
        self._held[0, :, start:end], self._held[1, :, start:end], self._length = keys, values, end
        return self._held[0, :, :end], self._held[1, :, :end]

    def attend(
        self, q: Float[Tensor, "N n H"], keys: Float[Tensor, "K n H"], values: Float[Tensor, "K n H"]
    ) -> Float[Tensor, "N n H"]:
        """Append rows, and attend from them to all that are held."""
        keys, values = self.extend(keys, values)
        return attend(q[None], keys[None], values[None], causal=True)[0]

    def fork(self, room: int = 0, length: int | None = None) -> LayerCache:
        """A copy, of all rows or the first ``length``, that goes on by itself, with ``room`` for rows to come."""
        copy, end = type(self)(room), self._length if length is None else length
        if self._held is not None:
            LayerCache.extend(copy, *self._held[:, :, :end])
        return copy


Caches = Sequence[Sequence[LayerCache]]  # [layer][conversation]


def rotary_frequencies(config: LLMConfig) -> tuple[Float[Tensor, " half"], float]:
    """Radians per position of each pair of channels, in float64, and the factor on cosine and sine.

    With YaRN (arXiv 2309.00071, section 3.2) slow channels are interpolated, fast ones are kept, and those between are
    blended on a ramp; the factor sharpens attention.
    """
    width = config.head_width
    frequencies = config.rope_theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    yarn = config.yarn
    if yarn is None:
        return frequencies, 1.0

    def channel(rotations: float) -> float:  # the channel that turns so often over the original context
        turns = yarn.original_max_positions / (rotations * 2 * math.pi)
        return width * math.log(turns) / (2 * math.log(config.rope_theta))

    low = max(math.floor(channel(yarn.beta_fast)), 0)
    high = min(math.ceil(channel(yarn.beta_slow)), width - 1)
    ramp = (torch.arange(width // 2, dtype=torch.float64) - low) / max(high - low, 0.001)
    interpolate = ramp.clamp(0, 1)
    blended = frequencies / yarn.factor * interpolate + frequencies * (1 - interpolate)
    return blended, 0.1 * math.log(yarn.factor) + 1.0


def rotary_tables(config: LLMConfig, positions: Int[Tensor, " T"]) -> Tables:
    """Cosine and sine of each row, float32 from float64 angles: exact to the last position. Those for queries hold the
    factor of log-length scaling (arXiv 2202.12172), by which attention to more rows stays as sharp."""
    frequencies, factor = rotary_frequencies(config)
    exact = "cpu" if positions.device.type == "mps" else positions.device  # which has no float64
    angles = positions.to(exact).double()[:, None] * frequencies.to(exact)
    angles = torch.cat([angles, angles], dim=-1)
    cos, sin = ((turn * factor).float().to(positions.device) for turn in (angles.cos(), angles.sin()))
    if not config.log_scaled_from:
        return cos, sin, cos, sin
    grown = ((positions + 1).log() / math.log(config.log_scaled_from)).clamp(min=1)[:, None]
    return cos, sin, cos * grown, sin * grown


def rotate(x: Float[Tensor, "n T H"], tables: Tables) -> Float[Tensor, "n T H"]:
    """Rotary position embedding in float32, by the first two tables: a channel of each half turns with one another."""
    first, second = (wide := x.float()).chunk(2, dim=-1)
    return (wide * tables[0] + torch.cat([-second, first], dim=-1) * tables[1]).to(x.dtype)


def rotate_(x: Float[Tensor, "n T H"], tables: Tables) -> Float[Tensor, "n T H"]:
    """The same in place, some rows at a time, where nothing learns."""
    if torch.is_grad_enabled():
        return rotate(x, tables)
    for part, *own in zip(x.split(ROTATED, 1), *(table.split(ROTATED) for table in tables[:2]), strict=True):
        part.copy_(rotate(part, tuple(own)))
    return x


def attend_padded(
    q: Float[Tensor, "N T H"], k: Float[Tensor, "K T H"], v: Float[Tensor, "K T H"], lengths: Sequence[int]
) -> Float[Tensor, "N T H"]:
    """Causal attention of many conversations in one launch, each filled up behind its end, which no row of it sees."""
    sizes, place = torch.tensor(lengths), torch.arange(max(lengths))
    spread = ((sizes.cumsum(0) - sizes)[:, None] + place).clamp(max=q.shape[1] - 1).to(q.device)
    back = (torch.arange(len(lengths))[:, None] * len(place) + place)[place < sizes[:, None]].to(q.device)
    q, k, v = (t.index_select(1, spread.flatten()).unflatten(1, spread.shape).transpose(0, 1) for t in (q, k, v))
    mixed = attend(q, k, v, causal=True)
    return mixed.transpose(0, 1).flatten(1, 2).index_select(1, back)


class Attention(nn.Module):
    """Grouped-query attention: biases on query, key and value, none on the output."""

    def __init__(self, config: LLMConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, config.head_width
        inner, kv_inner = config.heads * config.head_width, config.kv_heads * config.head_width
        self.q_proj = nn.Linear(config.width, inner)
        self.k_proj = nn.Linear(config.width, kv_inner)
        self.v_proj = nn.Linear(config.width, kv_inner)
        self.o_proj = nn.Linear(inner, config.width, bias=False)

    def forward(
        self, x: Float[Tensor, "T E"], lengths: Sequence[int], tables: Tables, caches: Sequence[LayerCache] | None
    ) -> Float[Tensor, "T E"]:
        """Each conversation attends to itself: ``lengths`` rows of it are new, ``caches`` hold the rows before."""
        q = rotate_(self._split(self.q_proj(x)), tables[2:])
        k = rotate_(self._split(self.k_proj(x)), tables)
        v = self._split(self.v_proj(x))
        alike = len(lengths) > 1 and len(lengths) * max(lengths) < PADDED * x.shape[0]
        if caches is None and alike and (x.is_cuda or (x.requires_grad and max(lengths) <= SHORT)):
            return self.o_proj(attend_padded(q, k, v, lengths).transpose(0, 1).flatten(1))
        parts = zip(*(t.split(list(lengths), 1) for t in (q, k, v)), strict=True)
        if caches is None:
            mixed = [attend(q[None], k[None], v[None], causal=True)[0] for q, k, v in parts]
        else:
            mixed = [cache.attend(*part) for cache, part in zip(caches, parts, strict=True)]
        return self.o_proj((torch.cat(mixed, dim=1) if mixed[1:] else mixed[0]).transpose(0, 1).flatten(1))

    def _split(self, x: Float[Tensor, "T inner"]) -> Float[Tensor, "n T H"]:
        return x.unflatten(-1, (-1, self.head_width)).transpose(0, 1)

    def scores(self, x: Float[Tensor, "n E"], queries: Sequence[int], tables: Tables) -> Float[Tensor, " n"]:
        """Attention that rows ``queries`` of one conversation pay to each of its rows, averaged over heads and queries.

        Only those rows are scored, in float32: memory grows with n, never n * n.
        """
        rows = torch.tensor(queries, device=x.device)
        keys = rotate_(self._split(self.k_proj(x)), tables).float()
        q = rotate(self._split(self.q_proj(x[rows])), tuple(table[rows] for table in tables[2:])).float()
        groups = q.unflatten(0, (self.kv_heads, -1)).flatten(1, 2)  # "K (heads per key head * queries) H"
        logits = (groups @ keys.transpose(1, 2)) / math.sqrt(self.head_width)
        logits = logits.unflatten(1, (-1, len(queries)))
        ahead = torch.arange(x.shape[0], device=x.device) > rows[:, None]
        return logits.masked_fill(ahead, -math.inf).softmax(dim=-1).mean(dim=(0, 1, 2))


class GatedMlp(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: LLMConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.width, bias=False)

    def forward(self, x: Float[Tensor, "T E"]) -> Float[Tensor, "T E"]:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, config: LLMConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.width, config.rms_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, config.rms_eps)
        self.mlp = GatedMlp(config)

    def forward(
        self, rows: Float[Tensor, "T E"], lengths: Sequence[int], tables: Tables, caches: Sequence[LayerCache] | None
    ) -> Float[Tensor, "T E"]:
        rows = rows + self.self_attn(self.input_layernorm(rows), lengths, tables, caches)
        if torch.is_grad_enabled():
            chunks = [part + self.mlp(self.post_attention_layernorm(part)) for part in rows.split(ROW_CHUNK)]
            return chunks[0] if len(chunks) == 1 else torch.cat(chunks)
        for part in rows.split(ROW_CHUNK):
            part += self.mlp(self.post_attention_layernorm(part))
        return rows

    @torch.no_grad()
    def rank(
        self, rows: Float[Tensor, "T E"], segments: Sequence[Segment], tables: Tables
    ) -> list[Float[Tensor, " _"] | None]:
        """For each conversation a score for each row, as this layer's attention would pay it; None without a query."""
        scores: list[Tensor | None] = []
        parts = zip(*(t.split([s.length for s in segments]) for t in (rows, *tables)), strict=True)
        for segment, (own, *turns) in zip(segments, parts, strict=True):
            asked = segment.queries if segment.runs else ()
            scores.append(self.self_attn.scores(self.input_layernorm(own), asked, tuple(turns)) if asked else None)
        return scores


@dataclass(frozen=True)
class Hidden:
    """What leaves the decoder: normalised rows, the conversations as they ended, and where each row came from."""

    rows: Float[Tensor, "T E"]
    segments: tuple[Segment, ...]
    kept: Int[Tensor, " T"]
    visual: tuple[int, ...]  # visual rows that entered each layer, over all conversations


class Decoder(nn.Module):
    """Qwen2 without its head. Module names are those of the released checkpoints. ``cache``: what holds its rows."""

    def __init__(self, config: LLMConfig) -> None:
        super().__init__()
        self.config = config
        self.cache: type[LayerCache] = LayerCache
        self.embed_tokens = nn.Embedding(config.vocab, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, config.rms_eps)

    def forward(
        self,
        rows: Float[Tensor, "T E"],
        segments: Sequence[Segment],
        plan: Plan = (),
        caches: Caches | None = None,
        on_layer: Callable[[int], None] | None = None,
        layers: range | None = None,
    ) -> Hidden:
        """Run packed conversations through all layers, or some of them.

        Args:
            rows: embeddings of all conversations, one behind the other.
            segments: how long each one is, where its visual rows lie, which rows rank them.
            plan: the drops; they apply to segments that have runs.
            caches: one LayerCache per layer and conversation, extended in place; None keeps nothing.
            on_layer: told the number of layers done, after each.
            layers: which to run; rows come back without the final norm unless the last layer is among them.

        Raises:
            ValueError: segments that do not add up to the rows.
        """
        if sum(s.length for s in segments) != rows.shape[0]:
            raise ValueError(f"segments hold {sum(s.length for s in segments)} rows, but {rows.shape[0]} were given")
        segments = tuple(segments)
        drops = {drop.layer: drop for drop in plan}
        kept = torch.arange(rows.shape[0], device=rows.device)
        spans: list[tuple[int, int]] = []
        visual = []
        layers = range(len(self.layers)) if layers is None else layers
        for index in layers:
            block = cast("Block", self.layers[index])
            held = [len(cache) for cache in caches[index]] if caches is not None else [0] * len(segments)
            if index in drops and any(s.runs for s in segments):
                drop = drops[index]
                tables = self._tables([0] * len(segments), segments, rows.device)
                ranked = block.rank(rows, segments, tables) if drop.by == "attention" else [None] * len(segments)
                keep, segments = choose(segments, drop, ranked)
                keep = keep.to(rows.device)
                rows, kept = rows[keep], kept[keep]
            if spans != (spans := [(n, s.length) for n, s in zip(held, segments, strict=True)]):
                tables = self._tables(held, segments, rows.device)
            visual.append(sum(run.length for s in segments for run in s.runs))
            rows = block(rows, [s.length for s in segments], tables, caches[index] if caches else None)
            if on_layer is not None:
                on_layer(index + 1)
        return Hidden(self.norm(rows) if layers.stop == len(self.layers) else rows, segments, kept, tuple(visual))

    def _tables(self, held: Sequence[int], segments: Sequence[Segment], device: torch.device) -> Tables:
        """Rotary tables for rows that follow ``held`` earlier ones in each conversation."""
        places = [torch.arange(n, n + s.length, device=device) for n, s in zip(held, segments, strict=True)]
        for place, segment in zip(places, segments, strict=True):
            for run in segment.runs:
                place[run.start :] += run.skipped * run.length // max(run.seen, 1)
        return rotary_tables(self.config, torch.cat(places))
