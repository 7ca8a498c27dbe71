"""Runs the server: one socket, one store, one worker or a fleet, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import typer
import uvicorn

from ..cluster import join, share
from .app import House, make_app
from .fetch import Fetcher
from .guard import Guard, Keys, is_loopback
from .limits import Limits
from .line import Line, Places
from .media import UUIDS, Finder
from .metrics import Metrics
from .samples import Samples
from .shelf import Shelf, sweep
from .uploads import Uploads

CONNECTIONS = 512  # at once; more are told to come back
PATIENCE = 10  # seconds that running requests have when the server is stopped


@dataclass(frozen=True)
class Settings:
    """What vcflash serve was told. With ``ray``, the address of a cluster, there are replicas on it."""

    loading: Mapping[str, object]
    host: str
    port: int
    keys: Keys
    limits: Limits
    store: Path
    media_root: Path | None
    domains: tuple[str, ...]
    debug: bool
    ray: str | None = None
    replicas: int = 1


class Short(logging.Formatter):
    """A line for each entry; a stack only for those who debug."""

    def __init__(self, debug: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self.debug = debug

    def format(self, record: logging.LogRecord) -> str:
        """Without the stack, the name of the error has to do."""
        if self.debug or not record.exc_info or record.exc_info[0] is None:
            return super().format(record)
        words = f"{record.getMessage().splitlines()[0].strip()}: {record.exc_info[0].__name__}"
        bare = {"msg": words, "args": (), "exc_info": None, "exc_text": None}
        return super().format(logging.makeLogRecord({**vars(record), **bare}))


FOLDERS = ("sights", "uploads/data", "uploads/notes", "uuids", "samples")  # of a store, where files are written


class Server(uvicorn.Server):
    """Ends when it is told to, not by signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Whoever runs it does that."""
        yield


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        OSError: the address, the store or the cluster cannot be had.
        ValueError: the model cannot be loaded.
    """
    _log(settings.debug)
    settings.store.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        stack.enter_context(_locked(settings.store))
        ear = stack.enter_context(_listening(settings.host, settings.port))
        sweep(settings.store, FOLDERS)  # what a killed server left
        host, port = ear.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        typer.echo(f"{address} serves {settings.loading['model']}; Ctrl-C ends it")
        metrics = Metrics()
        asyncio.run(_run(settings, ear, stack.enter_context(_working(settings, metrics)), metrics))


@contextmanager
def _working(settings: Settings, metrics: Metrics) -> Iterator[Places]:
    """Who answers: a worker of this machine, or replicas on a cluster."""
    told = {"loading": dict(settings.loading), "store": str(settings.store / "sights")}
    if settings.ray is None:
        yield Line(told, settings.limits, metrics, settings.debug)
        return
    count = settings.replicas
    each = {"cpus": share(settings.ray, count), "gpus": int(settings.loading["device"] == "cuda")}
    ray = join(settings.ray, count * each["cpus"], count * each["gpus"], settings.debug)
    try:
        from .fleet import Fleet  # not before: Ray reads its token when it is loaded

        with redirect_stdout(sys.stderr):  # where Ray tells of processes that died
            yield Fleet(told, settings.limits, metrics, settings.debug, replicas=count, **each)
    finally:
        ray.shutdown()


async def _run(settings: Settings, ear: socket.socket, line: Places, metrics: Metrics) -> None:
    limits, store = settings.limits, settings.store
    scratch, sights = _made(store / "scratch"), store / "sights"
    uploads = Uploads(_made(store / "uploads"), limits.upload_store_bytes, limits.upload_bytes)
    fetch = Fetcher(settings.domains, limits) if settings.domains else None
    finder = Finder(uploads, Shelf(store / "uuids", UUIDS), settings.media_root, fetch)
    models, samples = (str(settings.loading["model"]),), Samples(store / "samples")
    house = House(limits, line, uploads, finder, metrics, models, scratch, sights, samples)
    names = (
        ()
        if settings.keys.digests or not is_loopback(settings.host)
        else ("localhost", "127.0.0.1", "::1", settings.host)
    )
    guarded = Guard(make_app(house), settings.keys, limits, metrics, names)
    config = uvicorn.Config(
        guarded,
        http="h11",  # what is tested; another parser, where one is installed, reads malformed requests in its own way
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=PATIENCE,
    )
    server = Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, server)
    keeping = asyncio.ensure_future(line.keep())
    serving = asyncio.ensure_future(server.serve(sockets=[ear]))
    await asyncio.wait({keeping, serving}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    await line.stop()
    await keeping
    shutil.rmtree(scratch, ignore_errors=True)


def _stop(server: Server) -> None:
    """The first time after the answers that are under way, the second time at once."""
    server.force_exit = server.should_exit
    server.should_exit = True


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    if not (store / "lock").exists() and any(store.iterdir()):
        raise ValueError(f"{store} holds other things, and a store is swept: name an empty folder for --store")
    with (store / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another server uses {store}: stop it or choose another --store") from None
        yield


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        ear = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise OSError(f"{host}:{port} cannot be listened on ({error.strerror}): choose another --port") from None
    with ear:
        yield ear


def _log(debug: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(Short(debug))
    for name, level in (("vcflash.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.DEBUG if debug else level)
