"""The way to a hub as the environment has it: by which proxy, and which certificates are trusted.

What curl and others understand is understood: lower and upper case, ALL_PROXY, and in NO_PROXY names, networks and IPv6
addresses with and without brackets. Nothing of it concerns this machine's own installation.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from processes.client.errors import BadVariable

PORTS: Final = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """A proxy, and the variable that names it."""

    url: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {_shown(self.url)} of {self.variable}"


def proxy_to(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy by which the environment has this URL reached; None: directly. Raises: BadVariable."""
    parts = urlsplit(url)
    is_cgi = "REQUEST_METHOD" in environ  # there HTTP_PROXY is a header of the client's. Source: httpoxy.org
    names = [f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    name = next((name for name in names if environ.get(name) and not (is_cgi and name == "HTTP_PROXY")), None)
    if name is None or _is_direct(parts, environ.get("no_proxy") or environ.get("NO_PROXY", "")):
        return None
    found = environ[name].strip()
    found = found if "://" in found else f"http://{found}"
    try:
        proxy = urlsplit(found)
        usable = proxy.hostname and (proxy.port is None or proxy.port) and not set(found) & set(' \t\\"<>')
    except ValueError:
        usable = False
    past = f"NO_PROXY={parts.hostname} goes past it"
    if not usable:
        raise BadVariable(
            name, f"{name} is not the URL of a proxy: it looks like http://proxy.example.org:3128; {past}"
        )
    if proxy.scheme not in PORTS:
        kind = f"{name} names a proxy of the kind {proxy.scheme}, and only http:// and https:// are spoken here"
        raise BadVariable(name, f"{kind}; {past}")
    return Proxy(found, name)


def trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return whom the environment trusts: the authorities of SSL_CERT_FILE or SSL_CERT_DIR, else the usual ones.

    Raises: BadVariable.
    """
    file, folder = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    try:
        if file:
            return ssl.create_default_context(cafile=file)
        if folder:
            return ssl.create_default_context(capath=folder)
    except ssl.SSLError:
        raise BadVariable("SSL_CERT_FILE", f"SSL_CERT_FILE names {file}, which holds no certificates (PEM)") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadVariable("SSL_CERT_FILE", f"SSL_CERT_FILE names {file}, which cannot be read: {why}") from None
    import httpx  # noqa: PLC0415  # as in http_link.py

    return httpx.create_ssl_context(trust_env=False)


def _is_direct(parts: SplitResult, no_proxy: str) -> bool:
    """Return whether an entry of NO_PROXY means the host. An entry that means nothing is passed over, as curl does."""
    host = (parts.hostname or "").rstrip(".").lower()
    port = parts.port or PORTS.get(parts.scheme)
    address = _address(host)
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*":
            return True
        name, its_port = _split_port(entry.partition("://")[2] or entry)
        if its_port is not None and its_port != port:
            continue
        if address is not None:
            try:
                if address in ipaddress.ip_network(name, strict=False):
                    return True
            except ValueError:
                continue
        else:
            name = name.removeprefix("*").strip(".")
            if name and (host == name or host.endswith(f".{name}")):
                return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _split_port(entry: str) -> tuple[str, int | None]:
    """Return the name and the port of an entry: `[::1]:8080` has one, `::1` and `fe80::/10` have none."""
    if entry.startswith("["):
        name, _, behind = entry[1:].partition("]")
        if behind.startswith("/"):  # [fe80::]/10
            return name + behind, None
        port = behind.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, port = entry.partition(":")
    else:
        return entry, None
    return name, int(port) if port.isascii() and port.isdigit() else None


def _shown(url: str) -> str:
    """The proxy's URL without what it may hold of a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
