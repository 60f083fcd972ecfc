"""GET /agent: one file that installs the agent on a server. Made once, when it is first asked for, of what runs here.

It is a script for sh with everything inside: the agent's modules (found by their imports, so nobody keeps a list), the
libraries of this very installation for servers with the same Python and machine, and a list of pinned ones for all
others. The same tree, settings and libraries give the same bytes, so its digest can be compared.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import hashlib
import importlib.metadata
import io
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from processes.fanout.auth import Auth
from processes.fanout.web import Problem, guarded

PATH: Final = "/agent"
HOME: Final = Path(__file__).resolve().parents[2]  # what `processes` stands in
ROOM: Final = HOME / "processes" / "agent"
ROOTS: Final = ("processes.agent.__main__", "processes.agent.install")
LIBRARIES: Final = ("msgspec", "psutil", "structlog", "websockets")
LEFT_OUT: Final = (".pyi", ".c", ".h", ".pyc", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json")
EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say


class AgentFile(NamedTuple):
    """The file, and its SHA-256 in hex."""

    content: bytes
    digest: str


def closure(roots: tuple[str, ...] = ROOTS, home: Path = HOME) -> dict[str, Path]:
    """Return the modules that these import when they are imported, with their files, packages among them."""
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        base = home.joinpath(*module.split("."))
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if module in found or not path.is_file():  # the latter: a name out of a module
            continue
        found[module] = path
        waiting += [module.rpartition(".")[0]] if "." in module else []
        for node in _at_import(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                waiting += [each.name for each in node.names if each.name.startswith("processes.")]
            elif node.module is not None and node.module.split(".")[0] == "processes":
                waiting += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
    return found


def _at_import(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that importing a module carries out: not those within functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _at_import(node)


def make(hub: str) -> AgentFile:
    """Make the file. `hub`: the URL that agents dial. Cost: about half a second of CPU. Raises: OSError."""
    version = importlib.metadata.version("fleethub")
    members = {f"{path.relative_to(HOME)}": path.read_bytes() for path in closure().values()}
    # what importlib.metadata reads the version from
    members[f"fleethub-{version}.dist-info/METADATA"] = (
        f"Metadata-Version: 2.1\nName: fleethub\nVersion: {version}\n".encode()
    )
    members["requirements.txt"] = (ROOM / "requirements.txt").read_bytes()
    members.update(_libraries())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED, 9)
    payload = base64.encodebytes(buffer.getvalue()).decode()
    call = f'main(sys.argv[1:], payload="""\n{payload}""", hub={hub!r}, version={version!r})'
    program = f"{(ROOM / 'unpack.py').read_text()}\n\n{call}"
    content = (ROOM / "head.sh").read_text().format(version=version, program=program).encode()
    return AgentFile(content, hashlib.sha256(content).hexdigest())


def _libraries() -> dict[str, bytes]:
    """Return the files of this installation's own libraries, for servers with this Python and machine; none, if they
    are not installed as pip does it.
    """
    found: dict[str, bytes] = {}
    for library in LIBRARIES:
        for file in importlib.metadata.distribution(library).files or []:
            name = str(file)
            if name.startswith("..") or name.endswith(LEFT_OUT) or "/tests/" in name or "__pycache__" in name:
                continue
            found[f"lib{sysconfig.get_config_var('EXT_SUFFIX')}/{name}"] = Path(str(file.locate())).read_bytes()
    return found


class AgentDownload:
    """The file of one fanout: made when it is first wanted, on a thread, and kept."""

    def __init__(self, hub: str) -> None:
        """`hub`: the URL that agents dial."""
        self._hub = hub
        self._made: AgentFile | None = None
        self._making = asyncio.Lock()

    async def file(self) -> AgentFile:
        """Return the file. Whoever asks while it is made waits for that one. Raises: OSError."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(make, self._hub)
            return self._made

    async def named(self) -> dict[str, str]:
        """Return the file's digest, or why there is none, as fields of a HostCode."""
        try:
            return {"agent_sha256": (await self.file()).digest}
        except OSError as error:
            return {"agent_file_missing": f"the agent's file cannot be made: {error}"}

    def route(self, auth: Auth) -> Route:
        """Return the route of the file, which needs no sign-in."""
        return Route(PATH, guarded(auth, None, self._download), methods=["GET"])

    async def _download(self, request: Request) -> Response:
        try:
            file = await self.file()
        except OSError as error:
            raise Problem(503, "no_agent_file", f"the agent's file cannot be made: {error}") from None
        tag = f'"{file.digest}"'
        headers = {
            "etag": tag,
            "repr-digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file.digest)).decode()}:",  # RFC 9530
        }
        if tag in {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type="text/x-shellscript; charset=utf-8", headers=headers)
