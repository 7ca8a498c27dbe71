"""Asks a judging language model about answers: whatever an OpenAI-compatible endpoint serves, greedily, raw words kept.

The authors' own wordings of these requests are not part of this project; what is asked for is theirs: an answer from
a caption alone, then a verdict as ``{'pred': 'yes', 'score': 4}`` (AuroraCap's VDCscore), and A, B or C (SimpleQA's
rubric, VideoEval-Pro).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..remote import Server, post, read_reply

URL, MODEL = "VCFLASH_JUDGE", "VCFLASH_JUDGE_MODEL"  # in the environment; OPENAI_API_KEY where it wants a key
ANSWER_TOKENS, VERDICT_TOKENS = 256, 64
FROM_CAPTION = (
    "Here is a description of a video:\n{caption}\n\nAnswer the following question from this description alone, in a "
    "few words. If it does not say, answer that it does not.\nQuestion: {question}"
)
VERDICT = (
    "A question about a video, its right answer and an answer that was given:\nQuestion: {question}\nRight answer: "
    "{truth}\nGiven answer: {said}\n\nDoes the given answer mean the same as the right one? Reply with one Python dict "
    "and nothing else: 'pred' is 'yes' or 'no', 'score' is a whole number from 0 to 5, 5 for the same meaning. Like "
    "this: {{'pred': 'no', 'score': 1}}"
)
THREE_WAY = (
    "A question about a video, its right answer and an answer that was given:\nQuestion: {question}\nRight answer: "
    "{truth}\nGiven answer: {said}\n\nIs the given answer A (correct: it says what the right answer says and "
    "contradicts nothing of it), B (incorrect: it contradicts the right answer) or C (not attempted: it does neither)? "
    "Reply with the letter alone."
)


@dataclass(frozen=True)
class Judge:
    """A model at an endpoint."""

    server: Server
    model: str

    def say(self, text: str, tokens: int) -> str:
        """What it replies.

        Raises:
            Unanswered: it cannot be reached, refuses, or sends no reply.
        """
        message = {"role": "user", "content": text}
        body = {"model": self.model, "messages": [message], "temperature": 0, "max_tokens": tokens}
        return read_reply(post(self.server, json.dumps(body).encode())).text


def judge_of(environment: Mapping[str, str] = os.environ) -> Judge:
    """The judge that the environment names.

    Raises:
        ValueError: it names none.
    """
    missing = [name for name in (URL, MODEL) if not environment.get(name)]
    if missing:
        raise ValueError(
            f"answers of this benchmark need a judge, and {' and '.join(missing)} is not set: "
            f"{URL}=http://host:port/v1 {MODEL}=NAME, of any OpenAI-compatible endpoint"
        )
    return Judge(Server(environment[URL]), environment[MODEL])


def from_caption(judge: Judge, caption: str, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """VDC: for each question with its right answer, what the judge answers from a caption, and its verdict of that."""
    for question, truth in pairs:
        said = judge.say(FROM_CAPTION.format(caption=caption, question=question), ANSWER_TOKENS)
        yield said, judge.say(VERDICT.format(question=question, truth=truth, said=said), VERDICT_TOKENS)


def verdict(judge: Judge, said: str, question: str, truth: str) -> str:
    """VideoEval-Pro: what the judge says of an answer, as it came."""
    return judge.say(THREE_WAY.format(question=question, truth=truth, said=said), VERDICT_TOKENS)
