"""Starts a worker in a process of its own, whose only way to the world is a socket to the server."""

from __future__ import annotations

import json
import socket
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path

from ..chat import Stopwatch
from ..failures import out_of_memory
from ..session import load
from .limits import Limits
from .shelf import Shelf
from .worker import Message, Worker


def main() -> None:
    """The socket's number is the last argument; its first line says what to load."""
    line = socket.socket(fileno=int(sys.argv[-1]))
    heard = line.makefile("rb")
    settings = json.loads(heard.readline())

    def send(message: Message) -> None:
        line.sendall(json.dumps(message).encode() + b"\n")

    warnings.simplefilter("ignore")
    try:
        vc = load(**settings["loading"], watch=Stopwatch())
    except (ValueError, OSError) as error:
        send({"failed": str(error)})
        return
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        send({"failed": "the model does not fit into memory: take a smaller one, or --quantization int8"})
        return
    limits = Limits(**settings["limits"])
    worker = Worker(vc, limits, Shelf(Path(settings["store"]), limits.sight_store_bytes, ".safetensors"), send)

    def listen() -> None:
        with suppress(ConnectionError):  # a server that was killed is one that closed the line
            for text in heard:
                worker.hear(json.loads(text))
        worker.hear({"do": "stop"})

    threading.Thread(target=listen, name="listening", daemon=True).start()
    llm = vc.model.config.llm
    about = {"made_by": vc.made_by, "layers": llm.layers, "max_positions": llm.limit}
    send({"ready": {**about, "kept": worker.kept()}})
    with suppress(ConnectionError):  # nobody listens any more
        worker.run()
