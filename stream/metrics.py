"""What a run is at, for Prometheus and whatever else reads its text format: GET /metrics, from this machine only.

The format is version 0.0.4 of https://prometheus.io/docs/instrumenting/exposition_formats/: for each metric a line of
HELP and one of TYPE, then its samples. Names end in their unit; what a run does not know it does not say.
"""

from __future__ import annotations

import contextlib
import http.server
import ipaddress
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from rheobase.stream.block import StreamError
from rheobase.stream.live import Live

METRICS: dict[str, tuple[str, str, str, str]] = {
    # name: its type, its part of `Live`, its key there, what it is
    "rheobase_node_samples_total": ("counter", "nodes", "samples", "Samples that a node gave; a sink: took."),
    "rheobase_node_rate_hertz": ("gauge", "nodes", "rate", "Samples a second, of late."),
    "rheobase_node_busy_ratio": ("gauge", "nodes", "busy", "Share of the time at which a node had a block, of late."),
    "rheobase_edge_samples_total": ("counter", "edges", "samples", "Samples that came over an edge."),
    "rheobase_edge_lost_samples_total": ("counter", "edges", "lost", "Samples that could not be sent."),
    "rheobase_edge_dropped_samples_total": ("counter", "edges", "dropped", "Samples that an edge let go."),
    "rheobase_edge_depth_samples": ("gauge", "edges", "depth", "Samples on their way."),
    "rheobase_edge_age_p50_seconds": ("gauge", "edges", "p50", "Median age at the sink, since the start."),
    "rheobase_edge_age_p99_seconds": ("gauge", "edges", "p99", "99 % of the ages are below, since the start."),
    "rheobase_process_cpu_ratio": ("gauge", "processes", "cpu", "Use of the processor, of late; 1: one core."),
    "rheobase_process_resident_bytes": ("gauge", "processes", "rss", "Memory that a process has."),
    "rheobase_process_up": ("gauge", "processes", "up", "1 while a process runs."),
    "rheobase_device_live": ("gauge", "devices", "live", "1 while the stream of a source is live."),
    "rheobase_restarts_total": ("counter", "", "restarts", "How often a process was started again."),
    "rheobase_run_seconds": ("gauge", "", "seconds", "How long it has run."),
}  # fmt: skip


def text(said: Mapping[str, Any]) -> str:
    """The whole of what `Live` says (nothing yet: only what there is to know)."""
    lines = []
    parts: dict[str, list[tuple[dict[str, str], Mapping[str, Any]]]] = {
        "nodes": [({"node": k, "process": n["process"]}, n) for k, n in said.get("nodes", {}).items()],
        "edges": [({"from": e["from"], "to": e["to"]}, e | (e["age"] or {})) for e in said.get("edges", ())],
        "processes": [
            ({"process": k}, p | {"up": int(p["state"] in ("running", "hangs"))})
            for k, p in said.get("processes", {}).items()
        ],
        "devices": [({"node": k}, {"live": int(d["state"] == "live")}) for k, d in said.get("devices", {}).items()],
        "": [({}, said)],
    }
    for name, (kind, part, key, what) in METRICS.items():
        lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
        for labels, values in parts[part]:
            if (value := values.get(key)) is not None:
                words = ",".join(f'{k}="{_escaped(v)}"' for k, v in ({"graph": said["graph"]} | labels).items())
                lines.append(f"{name}{{{words}}} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@contextlib.contextmanager
def serving(live: Live, where: str) -> Iterator[None]:
    """Answer while the run goes on; where: PORT or ADDRESS:PORT, "" not at all.

    Raises StreamError where the address is not this machine's own, or is taken.
    """
    if not where:
        yield
        return
    host, port = address(where)

    class Answer(http.server.BaseHTTPRequestHandler):
        timeout = 2.0  # whoever asks for nothing is not waited for

        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/metrics"
            body = text(live.said).encode() if found else b"/metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.HTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, *_: Any) -> None:
            pass  # who asked is gone

    try:
        server = Server((host, port), Answer)
    except OSError as e:
        raise StreamError(f"--metrics {where}: cannot listen on {host} port {port}: {e.strerror}") from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def address(where: str) -> tuple[str, int]:
    """PORT or ADDRESS:PORT -> the two. Raises StreamError where it is not one, or not on loopback."""
    host, _, port = where.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise StreamError(f"--metrics {where}: write a port from 1 to 65535")
    try:
        mine = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        mine = None
    if mine is None or not mine.is_loopback:
        raise StreamError(
            f"--metrics {where}: {host} is not this machine's own: only 127.0.0.1 and ::1 are listened on"
        )
    return str(mine), int(port)
