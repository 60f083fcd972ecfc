"""The page's files: read once at the start, served under fixed names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from processes.fanout.auth import Auth
from processes.fanout.web import Endpoint, guarded

FOLDER: Final = Path(__file__).parent / "page"
KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def routes(auth: Auth) -> Iterator[Route]:
    """Yield a route for each file: no path is ever made from a request. `index.html` is at `/`."""
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in KINDS:
            name = "/" if path.name == "index.html" else f"/{path.name}"
            yield Route(name, guarded(auth, None, _file(path, auth.public.prefix)), methods=["GET"])


def _file(path: Path, prefix: str) -> Endpoint:
    """Return the endpoint of a file. The page names its files with the path that browsers have to ask for; from there
    on each module finds the others beside itself.
    """
    content, kind = path.read_bytes(), KINDS[path.suffix]
    if path.suffix == ".html":
        for name in (b"href", b"src"):
            content = content.replace(name + b'="/', name + b'="' + prefix.encode() + b"/")

    async def page(request: Request) -> Response:
        return Response(content, media_type=kind)

    return page
