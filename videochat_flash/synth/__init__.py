"""Procedural needle videos: cards and moving shapes hidden in haystacks, with questions whose answers are known."""

from videochat_flash.synth.draw import draw_card, draw_mover
from videochat_flash.synth.haystack import Haystack, procedural
from videochat_flash.synth.questions import ATTRIBUTES, KINDS, Question, ask, ask_attributes
from videochat_flash.synth.scene import Event, Scene, make_scene
from videochat_flash.synth.training import Labels, card_clip, card_frame, scene_frames
from videochat_flash.synth.world import (
    CHARACTERS,
    COLOURS,
    DIGITS,
    DIRECTIONS,
    LETTERS,
    SHAPES,
    SPEEDS,
    Card,
    Mover,
    Plate,
    Style,
    random_style,
    random_what,
)

__all__ = [
    "ATTRIBUTES",
    "CHARACTERS",
    "COLOURS",
    "DIGITS",
    "DIRECTIONS",
    "KINDS",
    "LETTERS",
    "SHAPES",
    "SPEEDS",
    "Card",
    "Event",
    "Haystack",
    "Labels",
    "Mover",
    "Plate",
    "Question",
    "Scene",
    "Style",
    "ask",
    "ask_attributes",
    "card_clip",
    "card_frame",
    "draw_card",
    "draw_mover",
    "make_scene",
    "procedural",
    "random_style",
    "random_what",
    "scene_frames",
]
