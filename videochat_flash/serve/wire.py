"""A chat completion request, read strictly: what is asked of which videos, within the server's limits.

Unknown fields are refused, unless they are null: clients send back whole messages with all the fields they know of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ..chat import MAX_QUESTION
from ..config import parse_plan
from ..video import CLIP, MOST_FRAMES, Sampling
from .limits import Limits
from .refuse import Refused

# What OpenAI's API, or vLLM's, has and this server does not do. That something is unknown is said of the rest.
UNSUPPORTED = (
    *("audio", "chat_template", "chat_template_kwargs", "documents", "frequency_penalty", "function_call", "functions"),
    *("guided_json", "input_audio", "logit_bias", "logprobs", "modalities", "prediction", "presence_penalty"),
    *("response_format", "tool_calls", "tool_choice", "tools", "top_logprobs", "web_search_options"),
)
NO_ANSWER: tuple[object, ...] = (
    0,
    0.0,
    False,
    [],
    {"type": "text"},
    "none",
    "auto",
)  # values with which these ask for nothing
MOST = 4096  # messages, and parts of all of them, that are read at all: each may have errors, and all are listed
MOST_NAMES = 64  # of an object, for the same reason
COLDEST = 0.01  # temperatures above 0 and below this would overflow


class Strict(BaseModel):
    """An object of the request."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if len(value) > MOST_NAMES:
            raise ValueError(f"an object has more than {MOST_NAMES} fields")
        known = {*cls.model_fields, *(name for one in cls.model_fields.values() for name in _aliases(one))}
        told = {name: one for name, one in value.items() if one is not None}
        return {name: one for name, one in told.items() if name in known or not _asks_nothing(name, one)}


def _aliases(info: Any) -> list[str]:
    return (
        [str(one) for one in info.validation_alias.choices] if isinstance(info.validation_alias, AliasChoices) else []
    )


def _asks_nothing(name: str, value: object) -> bool:
    return name in UNSUPPORTED and value in NO_ANSWER


class Look(Strict):
    """Which frames of a video, by the names of qwen-vl-utils and vLLM."""

    fps: Annotated[float, Field(ge=0.001, le=1000)] | None = None
    nframes: Annotated[int, Field(ge=1)] | None = Field(
        default=None, validation_alias=AliasChoices("nframes", "num_frames")
    )
    max_frames: Annotated[int, Field(ge=CLIP)] | None = None
    video_start: Annotated[float, Field(ge=0, le=1e7)] | None = None
    video_end: Annotated[float, Field(gt=0, le=1e7)] | None = None


class Address(Strict):
    """Where a video or picture is."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None  # of OpenAI's; pictures are all seen alike


class TextPart(Strict):
    """Words."""

    type: Literal["text"]
    text: str


class ImagePart(Strict):
    """A picture. Without an address it is known by its uuid."""

    type: Literal["image_url"]
    image_url: Address | None = None
    uuid: Annotated[str, Field(min_length=1, max_length=256)] | None = None


class VideoPart(Look):
    """A video. Without an address it is known by its uuid."""

    type: Literal["video_url"]
    video_url: Address | None = None
    uuid: Annotated[str, Field(min_length=1, max_length=256)] | None = None


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Message(Strict):
    """What one side says."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(max_length=MOST)] | None = None
    name: str | None = None

    @property
    def parts(self) -> list[TextPart | ImagePart | VideoPart]:
        """A text is one part."""
        return self.content if isinstance(self.content, list) else [TextPart(type="text", text=self.content or "")]

    @property
    def words(self) -> str:
        """All texts, one below the other."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))


class StreamOptions(Strict):
    """What a stream tells beside the answer."""

    include_usage: bool = False
    include_progress: bool = False  # ours: comments in the stream while a video is seen; errors are events, then


class ChatRequest(Strict):
    """The body of /v1/chat/completions."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1 << 30)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: str | Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=8)] | None = None
    n: Literal[1] = 1
    user: str | None = None
    keep: Annotated[str, Field(max_length=256)] | None = None  # ours: dropout of visual tokens, as 'vcflash ask --keep'
    evidence: bool = False  # ours: when in the videos the model looked
    mm_processor_kwargs: Look | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_few_parts(cls, value: Any) -> Any:
        messages = value.get("messages") if isinstance(value, dict) else None
        contents = [
            one.get("content") for one in (messages if isinstance(messages, list) else ()) if isinstance(one, dict)
        ]
        if sum(len(one) for one in contents if isinstance(one, list)) > MOST:
            raise PydanticCustomError("too_many_parts", "the messages have too many parts")
        return value


@dataclass(frozen=True)
class Media:
    """A video or picture of a request."""

    kind: Literal["video", "image"]
    url: str | None
    uuid: str | None
    sampling: Sampling | None  # None of a picture


@dataclass(frozen=True)
class Ask:
    """A request that was understood.

    Attributes:
        turns: role and text, alternating from the user to the user.
        media: in order; all of them stand before the first question.
        decoding: fields of Decoding that the request names.
        stop: texts that end the answer.
        keep: a dropout plan as written; None is the model's own.
    """

    turns: tuple[tuple[str, str], ...]
    media: tuple[Media, ...]
    decoding: Mapping[str, float | int]
    stop: tuple[str, ...] = ()
    keep: str | None = None
    stream: bool = False
    usage: bool = False
    progress: bool = False
    evidence: bool = False


def understand(body: bytes, limits: Limits, models: Sequence[str]) -> Ask:
    """Read a request.

    Raises:
        Refused: it is not valid, or asks for more than the limits allow.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None
    if request.model not in models:
        raise Refused("no_model", "model")
    if request.keep is not None:
        try:
            parse_plan(request.keep)
        except ValueError as error:
            raise Refused("invalid", "keep", error) from None
    _check_sizes(request, limits)
    options = request.stream_options or StreamOptions()
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return Ask(
        turns=tuple(_turns(request.messages)),
        media=tuple(_media(request, limits)),
        decoding=_decoding(request),
        stop=tuple(one for one in stop if one),
        keep=request.keep,
        stream=request.stream,
        usage=options.include_usage,
        progress=options.include_progress,
        evidence=request.evidence,
    )


def _refusal(error: ValidationError) -> Refused:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = errors[0]
    long = next((one["loc"] for one in errors if one["type"] == "too_long"), ())
    if first["type"] == "too_many_parts":
        return Refused("too_many_parts", "messages")
    if "messages" in long:
        return Refused("too_many_parts" if "content" in long else "too_many_turns", "messages")
    if first["type"] == "json_invalid":
        return Refused("not_json", detail=first["msg"])
    place = [str(step) for step in first["loc"] if step in NAMES or isinstance(step, int)]
    whole = first["type"] == "extra_forbidden" and first["loc"][-1] in UNSUPPORTED
    if whole:
        return Refused("not_supported", str(first["loc"][-1]), first["msg"])
    return Refused("invalid", ".".join(place) or None, first["msg"])


def _names(model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield from (name, *_aliases(info))


MODELS: Sequence[type[BaseModel]] = (Look, Address, TextPart, ImagePart, VideoPart, Message, StreamOptions, ChatRequest)
NAMES = {name for model in MODELS for name in _names(model)}


def objects() -> dict[str, Any]:
    """The objects of a request by their names, as JSON schemas of an OpenAPI document; fields have all their names."""
    whole = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    found: dict[str, Any] = {**whole.pop("$defs"), "ChatRequest": whole}
    for model in MODELS:
        told = found[model.__name__]["properties"]
        for name, info in model.model_fields.items():
            told.update({alias: told[name] for alias in _aliases(info)})  # pydantic tells only the first
    return found


def _check_sizes(request: ChatRequest, limits: Limits) -> None:
    media = [part for message in request.messages for part in message.parts if not isinstance(part, TextPart)]
    words = [len(message.words) for message in request.messages]
    for much, most, code in (
        (len(request.messages), limits.turns, "too_many_turns"),
        (max(len(message.parts) for message in request.messages), limits.parts, "too_many_parts"),
        (len(media), limits.media, "too_many_media"),
        (max(words), limits.question_characters, "text_too_long"),
        (sum(words), limits.text_characters, "text_too_long"),
    ):
        if much > most:
            raise Refused(code, "messages")
    if (request.max_tokens or 0) > limits.output_tokens:
        raise Refused("too_many_tokens", "max_tokens")


def _turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """User and assistant in turns: the same side twice is one turn, what the system says stands before the question."""
    turns: list[tuple[str, str]] = []
    for message in messages:
        if message.role != "user" and any(not isinstance(part, TextPart) for part in message.parts):
            raise Refused("invalid", "messages")
        role, words = "assistant" if message.role == "assistant" else "user", message.words
        if turns and turns[-1][0] == role:
            turns[-1] = role, "\n".join(one for one in (turns[-1][1], words) if one)
        else:
            turns.append((role, words))
    if turns[0][0] != "user" or turns[-1][0] != "user" or not turns[-1][1].strip():
        raise Refused("empty_question", "messages")
    if max(len(words) for _, words in turns) > MAX_QUESTION:
        raise Refused("text_too_long", "messages")
    return turns


def _media(request: ChatRequest, limits: Limits) -> Iterator[Media]:
    parts = [part for message in request.messages for part in message.parts]
    videos = [part for part in parts if isinstance(part, VideoPart)]
    pictures = sum(isinstance(part, ImagePart) for part in parts)
    share = min(MOST_FRAMES, (limits.frames - pictures) // max(1, len(videos)) // CLIP * CLIP)
    if pictures > limits.frames or (videos and share < CLIP):
        raise Refused("too_many_media", "messages")
    for part in parts:
        if isinstance(part, TextPart):
            continue
        address = part.video_url if isinstance(part, VideoPart) else part.image_url
        if address is None and part.uuid is None:
            raise Refused("invalid", part.type)
        url = address.url if address else None
        if isinstance(part, ImagePart):
            yield Media("image", url, part.uuid, None)
        else:
            yield Media("video", url, part.uuid, _sampling(part, request.mm_processor_kwargs or Look(), share))


def _sampling(part: Look, defaults: Look, share: int) -> Sampling:
    """Of one video: its own keys, else those of the request. A number of frames wins over a rate."""
    wanted = {name: _first(getattr(part, name), getattr(defaults, name)) for name in Look.model_fields}
    if part.fps is not None and part.nframes is None:
        wanted["nframes"] = None
    count, most = wanted["nframes"], wanted["max_frames"]
    if max(count or 0, most or 0) > share:
        raise Refused("too_many_frames", "max_frames" if (most or 0) > share else "nframes")
    rate = None if count else wanted["fps"]
    most = most or (share if count or rate else min(Sampling.max_frames, share))
    try:
        return Sampling(
            "count" if count else "fps" if rate else "paper",
            most,
            fps=rate,
            num_frames=count,
            start=wanted["video_start"],
            end=wanted["video_end"],
        )
    except ValueError as error:  # all else that it checks was seen to above
        raise Refused("invalid", "nframes" if (count or 0) > most else "video_end", error) from None


def _first(own: Any, default: Any) -> Any:
    return default if own is None else own


def _decoding(request: ChatRequest) -> dict[str, float | int]:
    temperature = request.temperature
    given = {
        "max_new_tokens": request.max_tokens,
        "temperature": max(temperature, COLDEST) if temperature else temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "repetition_penalty": request.repetition_penalty,
        "seed": request.seed,
    }
    return {name: value for name, value in given.items() if value is not None}
