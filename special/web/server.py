"""The server of `special serve`: what is checked first, its port, and one process or several."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from rich.console import Console
from rich.markup import escape
from uvicorn.config import STARTUP_FAILURE

from special import machine, preflight
from special.errors import ConfigurationError
from special.observability import SHARED_COUNTS, logs, metrics_folder
from special.settings import Settings, with_rules_of
from special.version import __version__
from special.web.app import CONFIG_VARIABLE, SETTINGS_VARIABLE, App
from special.web.config_watch import ConfigWatch
from special.web.connections import ConnectionLimits, Connections
from special.web.process_tuning import tune
from special.web.protocol import GuardedProtocol, RequestLimits
from special.web.proxies import TrustedProxies
from special.web.supervisor import START_S, Supervisor
from special.workers import forbid_inspection


def serve_with(chosen: Settings, *, config: Path | None = None) -> None:
    """Answer requests until a signal ends it. Raises `ConfigurationError` before any is taken.

    Rules are read again when `config`, the file of the settings, changes.
    """
    logs.setup(chosen.log_format, sys.stderr)
    app = App(chosen, config=config)
    asyncio.run(preflight.require(chosen))
    listener = _listen(chosen.host, chosen.port, ("--host", "--port"))
    listeners = [listener]
    if chosen.admin_port is not None:
        listeners.append(_listen(chosen.admin_host, chosen.admin_port, ("SPECIAL_ADMIN_HOST", "SPECIAL_ADMIN_PORT")))
    host, port = listener.getsockname()[:2]
    Console(stderr=True, soft_wrap=True).print(
        f"[bold]special {__version__}[/] serves {escape(chosen.source)} at http://{host}:{port}/  (Ctrl-C stops it)",
        highlight=False,
    )
    limits = RequestLimits(chosen.max_url_bytes, int(chosen.max_header_bytes), chosen.receive_s)
    most = min(chosen.max_connections, machine.connections())
    connections = ConnectionLimits(most, TrustedProxies.parse(chosen.trusted_proxies))
    options: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "lifespan": "on",
        "http": partial(GuardedProtocol, limits=limits, open_connections=Connections(connections)),
        "ws": "none",
        "timeout_graceful_shutdown": 30,
        "timeout_worker_healthcheck": START_S,
    }
    forbid_inspection()
    if chosen.workers == 1:
        tune()
        uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=listeners)
        return
    with metrics_folder() as counts:
        os.environ |= {SETTINGS_VARIABLE: chosen.model_dump_json(), SHARED_COUNTS: str(counts)}
        if config is not None:
            os.environ[CONFIG_VARIABLE] = str(config.absolute())
        processes = uvicorn.Config("special.web.app:create", factory=True, workers=chosen.workers, **options)
        supervisor = Supervisor(processes, listeners, before_starts=_watch(config, chosen).check if config else None)
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            sys.exit(STARTUP_FAILURE)  # as one process does by itself


def _watch(config: Path, chosen: Settings) -> ConfigWatch[Settings]:
    """Has new server processes begin with the last rules that could be used, also while the file is broken."""

    def hand_on(settings: Settings) -> None:
        os.environ[SETTINGS_VARIABLE] = settings.model_dump_json()

    return ConfigWatch(config, lambda: with_rules_of(config, chosen), hand_on)


def _listen(host: str, port: int, settings: tuple[str, str]) -> socket.socket:
    """A listening socket. Raises `ConfigurationError`, which names the setting to change, of address and port."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        setting = settings[error.errno in (errno.EADDRINUSE, errno.EACCES)]
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with {setting}"
        ) from None
