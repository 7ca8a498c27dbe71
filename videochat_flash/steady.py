"""Tokens fed where nothing moves: a GPU records a step once and replays it, one launch instead of some 1,400.

The rows of the prompt stay where they are, those to come go into a window behind them. A step reads its token and its
place from tensors, so it is the same work each time; attention to the window is weighed with that to the rows before it
by their sums of exponentials. Scores are those of plain steps.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .attention import attend_flash
from .generate import LONGEST, Prefilled, Step
from .llm import Caches, LayerCache, rotary_tables
from .model import VideoChatFlashModel

UNRECORDED = 3  # first steps that are run: a short answer needs no recording


def steps(model: VideoChatFlashModel, begun: Prefilled, tokens: int) -> Step | None:
    """For ``generate.decode``: one conversation on a GPU, in half precision, which its flash kernel wants, and whose
    rows are held as they are."""
    serves = len(begun.logits) == 1 and tokens <= LONGEST and model.device.type == "cuda"
    serves = serves and model.decoder.cache is LayerCache
    serves = serves and model.dtype != torch.float32 and model.config.llm.head_width % 8 == 0
    if not serves or torch.cuda.get_device_capability(model.device) < (8, 0):
        return None
    return Steady(model, begun.caches, tokens)


class Window(LayerCache):
    """A cache that goes on a row at a time by tensors alone.

    Args:
        before: keys and values that stay.
        recent: those of the window, which fills up.
        place: of the next row in it.
        hidden: 0 up to there, -inf behind.
    """

    def __init__(
        self,
        before: tuple[Float[Tensor, "K m H"], Float[Tensor, "K m H"]],
        recent: tuple[Float[Tensor, "K w H"], Float[Tensor, "K w H"]],
        place: Int[Tensor, " 1"],
        hidden: Float[Tensor, " w"],
    ) -> None:
        super().__init__()
        self.before, self.recent, self.place, self.hidden = before, recent, place, hidden

    def attend(
        self, q: Float[Tensor, "N 1 H"], keys: Float[Tensor, "K 1 H"], values: Float[Tensor, "K 1 H"]
    ) -> Float[Tensor, "N 1 H"]:
        """Put the row in its place, and attend from it to all before it."""
        for held, new in zip(self.recent, (keys, values), strict=True):
            held.index_copy_(1, self.place, new)
        mixed, log_sum = attend_flash(q[None], self.before[0][None], self.before[1][None])
        query = q.float().reshape(len(keys), -1, q.shape[2])  # query heads of one key head, below each other
        recent, summed = (held.float() for held in self.recent)
        scores = torch.baddbmm(self.hidden, query, recent.transpose(1, 2), alpha=1 / math.sqrt(q.shape[2]))
        share = torch.cat([scores, log_sum.view(*query.shape[:2], 1)], dim=-1).softmax(dim=-1)  # all before is one more
        result = share[..., :-1] @ summed + share[..., -1:] * mixed.reshape(query.shape)
        return result.view(q.shape).to(q.dtype)


class Steady:
    """Feeds a conversation whose caches nobody else goes on with.

    Args:
        model: the model.
        caches: of the prompt; the window counts as held by them from now on.
        tokens: that the window has room for.
    """

    @torch.inference_mode()
    def __init__(self, model: VideoChatFlashModel, caches: Caches, tokens: int) -> None:
        self._model, self._done, config = model, 0, model.config.llm
        self._token, self._place = (torch.zeros(1, dtype=torch.long, device=model.device) for _ in range(2))
        self._places = torch.arange(tokens, device=model.device)
        self._hidden = torch.zeros(tokens, device=model.device)
        self._starts = [len(layer[0]) for layer in caches]
        self._tables = {n: rotary_tables(config, n + self._places) for n in set(self._starts)}
        blank = torch.zeros(config.kv_heads, tokens, config.head_width, dtype=model.dtype, device=model.device)
        self._windows = []
        for start, layer in zip(self._starts, caches, strict=True):
            keys, values = (held.split([start, tokens], 1) for held in layer[0].extend(blank, blank))
            self._windows.append(Window((keys[0], values[0]), (keys[1], values[1]), self._place, self._hidden))
        self._graph: torch.cuda.CUDAGraph | None = None

    @torch.inference_mode()
    def __call__(self, token: int) -> Float[Tensor, "1 V"]:
        """Scores behind one more token. On a GPU they stand in the same tensor each time."""
        self._token.fill_(token)
        self._place.fill_(self._done)
        self._done += 1
        if self._model.device.type != "cuda" or self._done <= UNRECORDED:
            return self._step()
        if self._graph is None:
            self._graph, self._logits = self._record()
        self._graph.replay()
        return self._logits

    def _step(self) -> Float[Tensor, "1 V"]:
        decoder = self._model.decoder
        self._hidden.zero_().masked_fill_(self._places > self._place, -torch.inf)
        turns = {n: tuple(table[self._place] for table in tables) for n, tables in self._tables.items()}
        rows = decoder.embed_tokens(self._token)
        for block, n, window in zip(decoder.layers, self._starts, self._windows, strict=True):
            rows = block(rows, [1], turns[n], [window])
        return self._model.logits(decoder.norm(rows))

    def _record(self) -> tuple[torch.cuda.CUDAGraph, Float[Tensor, "1 V"]]:
        """On a stream of its own, as PyTorch wants it, after a step there that wakes the libraries."""
        device, graph = self._model.device, torch.cuda.CUDAGraph()
        here, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self._step()
            graph.capture_begin(capture_error_mode="thread_local")  # other threads may use the device meanwhile
            try:
                logits = self._step()
            finally:  # or PyTorch would take all that follows for a part of it
                graph.capture_end()
        here.wait_stream(aside)
        return graph, logits
