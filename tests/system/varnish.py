"""A real Varnish with the VCL of the documentation, in front of backends on 127.0.0.1."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fastapi_cacheinval.testing.servers.child import Child
from tests.servers import until
from tests.servers.ports import free_port, listens

VCL = Path(__file__).resolve().parents[2] / "docs" / "examples" / "varnish.vcl"

_BACKEND = re.compile(r"backend default \{.*?\}\n", re.DOTALL)
_ROUND_ROBIN = """
import directors;

sub vcl_init {{
    new replicas = directors.round_robin();
{added}
}}

sub vcl_recv {{
    set req.backend_hint = replicas.backend();
}}
"""


def vcl_for(ports: Sequence[int]) -> str:
    """The documentation's VCL with these backends, in turn, in place of its one."""
    text = VCL.read_text("utf-8")
    backends = "".join(f'backend b{port} {{ .host = "127.0.0.1"; .port = "{port}"; }}\n' for port in ports)
    added = "\n".join(f"    replicas.add_backend(b{port});" for port in ports)
    made, count = _BACKEND.subn(lambda _: backends + _ROUND_ROBIN.format(added=added), text)
    assert count == 1, "the VCL has one backend to be replaced"
    return made


class Varnish:
    """A running varnishd."""

    def __init__(self, directory: Path, port: int, child: Child) -> None:
        self.directory = directory
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._child = child

    def counted(self, name: str) -> int:
        """One of its counters, such as `fetch_304`, which it may be a moment late to count."""
        command = ["varnishstat", "-1", "-n", str(self.directory), "-f", f"MAIN.{name}"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return int(said[1]) if said else 0

    def tail(self) -> str:
        """What it has written."""
        return self._child.tail()


@contextmanager
def varnish_before(directory: Path, ports: Sequence[int], port: int | None = None) -> Iterator[Varnish]:
    """A Varnish in front of backends, stopped at the end; `directory` must be short: it holds sockets."""
    found = shutil.which("varnishd", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    assert found, "no varnishd: run these tests with `make test-system`"
    port = port or free_port()
    vcl = directory / "test.vcl"
    vcl.write_text(vcl_for(ports), "utf-8")
    home = directory / "varnish"
    command = [found, "-F", "-j", "none", "-a", f"127.0.0.1:{port}", "-T", "none", "-f", str(vcl), "-n", str(home)]
    child = Child("varnishd", [*command, "-s", "malloc,64m", "-p", "thread_pool_min=20"], directory)
    try:
        until(lambda: not child.alive or listens(port), "varnishd", detail=child.tail)
        assert child.alive, child.tail()
        yield Varnish(home, port, child)
    finally:
        child.terminate()
