"""Every way of being refused: a status and one constant sentence. Nothing of a request, a path or an error is in it."""

from __future__ import annotations

from dataclasses import dataclass

INVALID, LIMIT, AUTH, FAULT = "invalid_request_error", "rate_limit_error", "authentication_error", "server_error"


@dataclass(frozen=True)
class Reason:
    """What a client is told."""

    status: int
    kind: str
    sentence: str


REASONS: dict[str, Reason] = {
    # 400: what was sent cannot be read
    "undecodable": Reason(400, INVALID, "The video or picture cannot be decoded."),
    "bad_data_url": Reason(400, INVALID, "A data: URL must be as data:video/mp4;base64,... with valid base64."),
    "bad_multipart": Reason(400, INVALID, "The upload is no multipart form with one file."),
    "url_refused": Reason(
        400, INVALID, "This address is not fetched: only https URLs of hosts that the server allows."
    ),
    "url_failed": Reason(400, INVALID, "The video could not be fetched from its address."),
    "path_refused": Reason(400, INVALID, "There is no such video in the folder that the server allows."),
    "unknown_file": Reason(400, INVALID, "There is no uploaded file with this id: upload the video again."),
    "unknown_uuid": Reason(400, INVALID, "No video is known by this uuid: send it with its URL."),
    # 401, 403, 404, 405
    "no_key": Reason(401, AUTH, "A valid API key is needed: send it as 'Authorization: Bearer KEY'."),
    "foreign_origin": Reason(403, AUTH, "Requests of other web pages are not answered."),
    "foreign_host": Reason(403, AUTH, "This server is not known by that host name."),
    "no_route": Reason(404, INVALID, "There is no such route."),
    "no_model": Reason(404, INVALID, "There is no such model here: see /v1/models."),
    "no_file": Reason(404, INVALID, "There is no such file."),
    "no_method": Reason(405, INVALID, "This route does not take that method."),
    "slow_body": Reason(408, INVALID, "The request did not arrive in time."),
    # 413: what was sent is too large
    "body_too_large": Reason(413, INVALID, "The request is too large."),
    "upload_too_large": Reason(413, INVALID, "The file is too large."),
    "too_many_turns": Reason(413, INVALID, "The conversation has too many messages."),
    "too_many_parts": Reason(413, INVALID, "A message has too many parts."),
    "too_many_media": Reason(413, INVALID, "The request has too many videos and pictures."),
    "text_too_long": Reason(413, INVALID, "The text is too long."),
    "video_too_long": Reason(413, INVALID, "The video is too long."),
    "video_too_large": Reason(413, INVALID, "The video has too many pixels."),
    "prompt_too_long": Reason(413, INVALID, "The conversation is too long for the model: ask for fewer frames."),
    # 422: a value that is not allowed
    "invalid": Reason(422, INVALID, "The request is not valid."),
    "not_json": Reason(422, INVALID, "The request is not valid JSON."),
    "too_many_frames": Reason(422, INVALID, "More frames are asked for than the server allows."),
    "too_many_tokens": Reason(422, INVALID, "More output tokens are asked for than the server allows."),
    "empty_question": Reason(422, INVALID, "The last message must be the user's, with a question."),
    "bad_window": Reason(422, INVALID, "The window from video_start to video_end lies outside the video."),
    "not_supported": Reason(422, INVALID, "The request asks for something that this server does not do."),
    # 429, 5xx
    "queue_full": Reason(429, LIMIT, "The server is busy: try again in a moment."),
    "gone": Reason(499, INVALID, "The client went away."),
    "internal": Reason(500, FAULT, "Something went wrong here."),
    "out_of_memory": Reason(503, FAULT, "The server ran out of memory: ask for fewer frames."),
    "worker_lost": Reason(503, FAULT, "The model had to be restarted: try again."),
    "not_ready": Reason(503, FAULT, "The model is not loaded yet."),
    "too_slow": Reason(504, FAULT, "The request took too long."),
    "disk_full": Reason(507, FAULT, "The server's disk is full."),
}
RETRY = {"queue_full": 2, "worker_lost": 5, "not_ready": 5}  # seconds after which another try makes sense


class Refused(Exception):
    """A request that is not answered.

    Args:
        code: one of REASONS.
        field: which field of the request, as the API calls it; never anything that the client wrote.
        detail: for the log of those who debug.
    """

    def __init__(self, code: str, field: str | None = None, detail: object = "") -> None:
        super().__init__(code)
        self.code, self.field, self.detail = code, field, str(detail)

    @property
    def status(self) -> int:
        """Of HTTP."""
        return REASONS[self.code].status

    @property
    def headers(self) -> dict[str, str]:
        """That go with it."""
        told = {"Retry-After": str(RETRY[self.code])} if self.code in RETRY else {}
        # Basic lets a browser ask for the key, too
        return told | ({"WWW-Authenticate": 'Basic realm="vcflash"'} if self.code == "no_key" else {})

    def body(self, request: str) -> dict[str, object]:
        """As OpenAI's clients read it, with the id of the request."""
        reason = REASONS[self.code]
        told = {"message": f"{reason.sentence} (request {request})", "type": reason.kind, "param": self.field}
        return {"error": told | {"code": self.code, "id": request}}
