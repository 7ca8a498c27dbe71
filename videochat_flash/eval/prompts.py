"""How a question is put to a model. The paper's words are facts, typing errors and odd spaces included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..grade import LETTERS
from .items import Item

Wording = Literal["full", "question", "paper"]

SUBTITLES = "The subtitles of this video:\n{subtitles}\n"
CHOOSE = "Answer with the letter of the right option alone."
TIMES = "Answer with its start and its end in seconds, in this form: From 2.5 to 7 seconds."


@dataclass(frozen=True)
class Layout:
    """Of a question with options: what comes before them, each of them, and what comes after."""

    before: str
    option: str
    after: str


FULL = Layout("{question}\n", "({letter}) {words}\n", CHOOSE)
DIRECTLY = "Answer with the option's letter from the given choices directly."
SELECT = (
    "Select the best answer to the following multiple-choice question based on the video{and_subtitles}. "
    "Respond with only the letter{letters} of the correct option.\nQuestion: {{question}}\n"
)
FOUR = " (A, B, C, or D)"
PAPER = {  # the reference's wording of each benchmark
    "mvbench": Layout("Question: {question}\nOption:\n", "({letter}) {words}\n", "\nOnly give the best option."),
    "perception-test": Layout("\nQuestion: {question}\n", "({letter}). {words}\n", "Only give the best option."),
    "longvideobench": Layout(
        " This video's subtitles are listed below: \n{subtitles}.\n "
        + SELECT.format(and_subtitles=" and the subtitles", letters=""),
        "({letter}). {words}\n",
        f"{DIRECTLY}\n",
    ),
    "mlvu": Layout("Question:{question}\nOption:\n", "({letter}) {words}\n", DIRECTLY),
    "video-mme": Layout(
        "These are the frames of a video. " + SELECT.format(and_subtitles="", letters=FOUR) + "Option:\n",
        "{letter}. {words}\n",
        DIRECTLY,
    ),
    "lvbench": Layout("{question}\n", "{letter}. ({letter}) {words}\n", DIRECTLY),
}
PAPER_SUBTITLED = Layout(  # Video-MME with subtitles
    "This video's subtitles are listed below: \n{subtitles}\nThese are the frames and subtitles of a video. "
    + SELECT.format(and_subtitles=" and the subtitles", letters=FOUR)
    + "Option:\n",
    "{letter}. {words}\n",
    "The best answer is:",
)
PAPER_TIMES = (  # of Charades-STA; the example in it is an item of the test set
    "Please find the visual event described by a sentence in the video, determining its starting and ending times. "
    "The format should be: 'The event happens in the start time - end time'. For example, The event 'person turn a "
    "light on' happens in the 24.3 - 30.4 seonds. Now I will give you the textual sentence: {question}. "
    "Please return its start time and end time."
)
PAPER_OPEN = "{question} Keep the answer short and concise."  # of VideoEval-Pro
CAPTION = {  # one for each of VDC's captions; the authors draw from lists that are not part of this project
    "camera": "Describe how the camera moves and how the shots are framed, from the beginning to the end.",
    "short": "Describe this video in one sentence.",
    "background": "Describe the background of this video: the place, the things in it, and how it changes.",
    "main_object": "Describe the main object of this video: how it looks, what it does, and how it changes.",
    "detailed": "Describe this video in detail: what happens, who and what is in it, where it is, and the camera.",
}


def prompt(item: Item, wording: Wording, benchmark: str = "mvbench") -> str:
    """The text of a question.

    ``full`` adds what the answer is to look like; ``question`` sends the question alone, options are then named by
    their own words; ``paper`` has the reference's wording of a benchmark (MVBench's where it has none of its own), and
    of Charades-STA for intervals, where the question is to be the sentence that describes the event.
    """
    if wording == "question":
        return item.question
    if item.kind == "judged":
        return PAPER_OPEN.format(question=item.question) if benchmark == "videoeval-pro-open" else item.question
    if item.kind == "choice":
        return _choices(item, _paper_layout(item, benchmark) if wording == "paper" else FULL, wording)
    asked = grounding(item.question, wording) if item.kind == "interval" else item.question
    return _subtitles(item) + asked


def grounding(question: str, wording: Wording) -> str:
    """The text of a question for an interval: of a whole question, or, in the paper's words, of an event."""
    if wording == "paper":
        return PAPER_TIMES.format(question=question)
    return f"{question}\n{TIMES}" if wording == "full" else question


def _paper_layout(item: Item, benchmark: str) -> Layout:
    if benchmark == "video-mme" and item.subtitles is not None:
        return PAPER_SUBTITLED
    return PAPER.get(benchmark, PAPER["mvbench"])


def _choices(item: Item, layout: Layout, wording: Wording) -> str:
    options = "".join(
        layout.option.format(letter=letter, words=words) for letter, words in zip(LETTERS, item.options, strict=False)
    )
    before = layout.before.format(question=item.question, subtitles=item.subtitles or "")
    return f"{_subtitles(item) if wording == 'full' else ''}{before}{options}{layout.after}"


def _subtitles(item: Item) -> str:
    return SUBTITLES.format(subtitles=item.subtitles) if item.subtitles else ""
