"""vcflash serve. Whatever is heavy is imported inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import errors
from ..cluster import LOCAL
from ..options import TINY, Device, Dtype, KvCacheDtype, Model, Quantization, RayAddress, Revision

_WHO, _WHAT, _HOW = "Who may ask", "What may be asked", "Who answers"
KEY = "VCF_API_KEY"
Host = Annotated[str, typer.Option(help="Address to listen on; other than loopback needs a key.", rich_help_panel=_WHO)]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.", rich_help_panel=_WHO)]
KeyFile = Annotated[
    Path | None,
    typer.Option(help=f"API keys, one a line; each sees its own uploads. Or one in {KEY}.", rich_help_panel=_WHO),
]
NoAuth = Annotated[bool, typer.Option("--no-auth", help="Without a key, also off loopback.", rich_help_panel=_WHO)]
Root = Annotated[
    Path | None, typer.Option(help="Videos in this folder may be named by their path.", rich_help_panel=_WHAT)
]
Domains = Annotated[
    list[str] | None,
    typer.Option(help="Fetch https videos of this host; may be repeated. Else none.", rich_help_panel=_WHAT),
]
Caps = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="NAME=N", help="As frames=2048, body_bytes=8M; may be repeated.", rich_help_panel=_WHAT
    ),
]
Store = Annotated[
    Path, typer.Option(help="Uploads and Sights; outlives restarts.", rich_help_panel="Where things are kept")
]
OnRay = Annotated[
    bool, typer.Option("--ray", help="Answer on a Ray cluster; on this machine if not said.", rich_help_panel=_HOW)
]
Replicas = Annotated[
    int, typer.Option(min=1, help="With --ray: workers, each with a model, and a GPU on cuda.", rich_help_panel=_HOW)
]
Level = Annotated[
    Literal["info", "debug"],
    typer.Option(help="debug writes paths, errors and stacks to the log.", rich_help_panel="What is told"),
]


def serve(
    model: Model = TINY,
    revision: Revision = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization = None,
    kv_cache_dtype: KvCacheDtype = "auto",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key_file: KeyFile = None,
    no_auth: NoAuth = False,
    media_root: Root = None,
    allow_media_domain: Domains = None,
    limit: Caps = None,
    store: Store = Path("~/.cache/vcflash/serve"),
    ray: OnRay = False,
    replicas: Replicas = 1,
    ray_address: RayAddress = None,
    log_level: Level = "info",
) -> None:
    """Answer over HTTP as OpenAI's API does: any of its clients can ask about a video."""
    try:
        from . import fetch, guard, run
        from .limits import with_changes
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'videochat-flash[serve]'") from None
    with errors.usage():
        limits = with_changes(limit or ())
        keys = guard.read_keys(os.environ.pop(KEY, None), api_key_file)  # no process that this one starts has it
        if not (keys.digests or no_auth or guard.is_loopback(host)):
            raise ValueError(f"--host {host} can be reached by others: set {KEY} or --api-key-file, or say --no-auth")
        domains = tuple(fetch.check_domain(name) for name in allow_media_domain or ())
        if media_root is not None and not media_root.is_dir():
            raise ValueError(f"--media-root {media_root} is not a folder")
        if not ray and (replicas > 1 or ray_address is not None):
            raise ValueError("--replicas and --ray-address are of --ray: say that, too")
        if ray and device.startswith("cuda:"):
            raise ValueError("with --ray each replica has a GPU of its own: say --device cuda")
    run.run(
        run.Settings(
            loading={
                "model": model,
                "revision": revision,
                "device": device,
                "dtype": dtype,
                "quantization": quantization,
                "kv_cache_dtype": kv_cache_dtype,
            },
            host=host,
            port=port,
            keys=keys,
            limits=limits,
            store=store.expanduser().absolute(),
            media_root=media_root,
            domains=domains,
            debug=log_level == "debug",
            ray=(ray_address or LOCAL) if ray else None,
            replicas=replicas,
        )
    )
