"""Prompts: ours say what an answer is to look like, the paper's are repeated to the letter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from videochat_flash.eval.items import Item
from videochat_flash.eval.prompts import PAPER, grounding, prompt

TWO = Item("a", "v", Path("v"), "Who?", options=("x", "y"))
SAID = replace(TWO, subtitles="One.\nTwo.")
WORDS = Item("a", "v", Path("v"), "Which way?", references=("left",))
TIME = Item("a", "v", Path("v"), "person opens {the} door", interval=(1, 2))
DIRECTLY = "Answer with the option's letter from the given choices directly."


def test_the_question_alone() -> None:
    assert [prompt(one, "question") for one in (TWO, SAID, WORDS)] == ["Who?", "Who?", "Which way?"]


def test_in_full() -> None:
    options = "Who?\n(A) x\n(B) y\nAnswer with the letter of the right option alone."
    assert prompt(TWO, "full") == options
    assert prompt(SAID, "full") == f"The subtitles of this video:\nOne.\nTwo.\n{options}"
    assert prompt(WORDS, "full") == prompt(WORDS, "paper") == "Which way?"
    assert prompt(TIME, "full").startswith("person opens {the} door\nAnswer with its start and its end in seconds")
    assert "24.3" not in prompt(TIME, "full")  # no example from a test set


@pytest.mark.parametrize(
    ("benchmark", "text"),
    [
        ("mvbench", "Question: Who?\nOption:\n(A) x\n(B) y\n\nOnly give the best option."),
        ("perception-test", "\nQuestion: Who?\n(A). x\n(B). y\nOnly give the best option."),
        ("mlvu", f"Question:Who?\nOption:\n(A) x\n(B) y\n{DIRECTLY}"),
        ("lvbench", f"Who?\nA. (A) x\nB. (B) y\n{DIRECTLY}"),
        (
            "video-mme",
            "These are the frames of a video. Select the best answer to the following multiple-choice question based "
            "on the video. Respond with only the letter (A, B, C, or D) of the correct option.\nQuestion: Who?\n"
            f"Option:\nA. x\nB. y\n{DIRECTLY}",
        ),
        (
            "longvideobench",
            " This video's subtitles are listed below: \n.\n Select the best answer to the following multiple-choice "
            "question based on the video and the subtitles. Respond with only the letter of the correct option.\n"
            f"Question: Who?\n(A). x\n(B). y\n{DIRECTLY}\n",
        ),
    ],
)
def test_in_the_paper_s_words(benchmark: str, text: str) -> None:
    assert prompt(TWO, "paper", benchmark) == text
    assert benchmark in PAPER and prompt(TWO, "paper", "videoeval-pro") == prompt(TWO, "paper")


def test_subtitles_in_the_paper_s_words() -> None:
    told = prompt(SAID, "paper", "video-mme")
    assert told.startswith(
        "This video's subtitles are listed below: \nOne.\nTwo.\nThese are the frames and subtitles of "
    )
    assert told.endswith("based on the video and the subtitles. Respond with only the letter (A, B, C, or D) of the "
                         "correct option.\nQuestion: Who?\nOption:\nA. x\nB. y\nThe best answer is:")  # fmt: skip
    assert "below: \nOne.\nTwo..\n Select" in prompt(SAID, "paper", "longvideobench")
    assert "One." not in prompt(SAID, "paper", "mvbench")


def test_charades_with_its_slips() -> None:
    told = prompt(replace(TIME, question="person opens the door."), "paper")
    assert told == grounding("person opens the door.", "paper")
    assert "24.3 - 30.4 seonds. Now I will give you the textual sentence: person opens the door.. Please" in told
    assert prompt(TIME, "paper").count("{the}") == 1
