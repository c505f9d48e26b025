"""nginx, Varnish and HAProxy with their caches, each in front of a server: what our hits are compared with."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.processes import SERVER_CORE, Server, answers, end, on_core
from fastapi_cacheinval.testing.servers.ports import free_port

__all__ = ["PROXIES", "find_proxies", "proxying"]

_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; default_type application/json;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_cache_path {folder}/c keys_zone=c:16m max_size=1g inactive=1d;
  server {{
    listen 127.0.0.1:{port} reuseport;
    location / {{
      proxy_pass http://127.0.0.1:{backend}; proxy_cache c; proxy_cache_valid 200 1d;
      proxy_ignore_headers Cache-Control Expires Vary; proxy_cache_key $scheme$host$request_uri;
    }}
  }}
}}
"""
_VARNISH = """
vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{backend}"; }}
sub vcl_recv {{ return (hash); }}
sub vcl_backend_response {{ set beresp.ttl = 1d; return (deliver); }}
"""
_HAPROXY = """
global
  nbthread 1
  tune.bufsize 131072
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
cache c
  total-max-size 512
  max-object-size 200000
  max-age 86400
frontend f
  bind 127.0.0.1:{port}
  http-request cache-use c
  default_backend b
backend b
  http-request cache-use c
  http-response set-header cache-control max-age=86400
  http-response cache-store c
  server s 127.0.0.1:{backend}
"""


def _nginx(folder: Path, port: int, backend: int) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, backend=backend))
    return ["nginx", "-p", str(folder), "-c", str(config)]


def _varnish(folder: Path, port: int, backend: int) -> list[str]:
    config = folder / "default.vcl"
    config.write_text(_VARNISH.format(backend=backend))
    where = ["-a", f"127.0.0.1:{port}", "-n", str(folder / "state"), "-f", str(config)]
    return ["varnishd", "-F", "-j", "none", *where, "-s", "malloc,1g", "-p", "thread_pools=1"]


def _haproxy(folder: Path, port: int, backend: int) -> list[str]:
    config = folder / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port=port, backend=backend))
    return ["haproxy", "-db", "-q", "-f", str(config)]


PROXIES: dict[str, tuple[str, Callable[[Path, int, int], list[str]]]] = {
    "nginx": ("nginx", _nginx),
    "Varnish": ("varnishd", _varnish),
    "HAProxy": ("haproxy", _haproxy),
}


def find_proxies(*, install: bool) -> list[str]:
    """Those that are there; Debian's are installed where they are missing and that can be done."""
    missing = not all(_found(program) for program, _ in PROXIES.values())
    if install and missing and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "nginx-light", "varnish", "haproxy"],
        ):
            subprocess.run(command, stdout=sys.stderr, check=False, env=quiet)
    return [name for name, (program, _) in PROXIES.items() if _found(program)]


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def proxying(name: str, backend: int) -> Iterator[Server]:
    """One of them in front of a server on a port, on the servers' core, answering."""
    program, make = PROXIES[name]
    with tempfile.TemporaryDirectory() as folder:
        # nginx and Varnish may give up the right to read what only its owner may.
        Path(folder).chmod(0o755)
        port = free_port()
        command = make(Path(folder), port, backend)
        command[0] = _found(program) or program
        with on_core(SERVER_CORE):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            server = Server(process.pid, port)
            answers(server, "/items/1", time.monotonic() + 30)
            yield server
        finally:
            end(process)
