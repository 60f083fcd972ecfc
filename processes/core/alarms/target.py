"""Where alarms go: the targets' names, and the part of a URL that may be shown. Pure.

An apprise URL holds passwords and tokens almost anywhere: mailto://user:password@host, slack://TOKEN/TOKEN/TOKEN. So
only its scheme is shown, and its host where the scheme is known to have one there.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

HOSTED: Final = frozenset({"http", "https", "json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"})
EXEC: Final = "exec"
WEBHOOK: Final = "webhook"
TARGETS_MAX: Final = 20  # each may have a process of its own for the time of one sending
SECRET_CHARS_MIN: Final = 3  # a shorter piece of a URL is no secret, and would tear words apart
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.")


def is_url(text: str) -> bool:
    """Return whether the text may be an apprise URL."""
    return _SCHEME.match(text) is not None and text.isprintable()


def names(urls: list[str], has_exec: bool, further: list[str] | None = None) -> list[str]:
    """Return a name for each target, in order, the program behind the URLs: mailto, slack, slack:2, exec. `further`:
    URLs or words of those behind it.
    """
    schemes = [_scheme_of(url) for url in urls] + [EXEC] * has_exec
    schemes += [_scheme_of(each) if is_url(each) else each for each in further or []]
    return [
        scheme if (n := schemes[: i + 1].count(scheme)) == 1 else f"{scheme}:{n}" for i, scheme in enumerate(schemes)
    ]


def masked(url: str) -> str:
    """Return the part of the URL that may be shown."""
    scheme = _scheme_of(url)
    host: str | None = None
    port: int | None = None
    if scheme in HOSTED:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
    return f"{scheme}://{host}{f':{port}' if port else ''}/…" if host else f"{scheme}://…"


def scrubbed(text: str, url: str, arguments: list[str]) -> str:
    """Return the text as one printable line, without the pieces of the URL that `masked` hides and
    without the program's arguments.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    shown = masked(url) if url else ""
    pieces = set(re.split(r"[:/@?&=#;,+]+", url[len(shown.partition(":")[0]) :]))
    pieces |= {unquote(piece) for piece in pieces} | {url, *arguments}
    for piece in sorted(pieces, key=len, reverse=True):
        if len(piece) >= SECRET_CHARS_MIN and piece not in shown:
            line = line.replace(piece, "…")
    return line


def _scheme_of(url: str) -> str:
    """Return the scheme in lower case; `?` if there is none."""
    found = _SCHEME.match(url)
    return found.group(1).lower() if found else "?"
