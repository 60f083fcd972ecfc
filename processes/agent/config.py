"""The agent's file: read, checked, every mistake named."""

from __future__ import annotations

import codecs
import difflib
import re
import shutil
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from processes.adapters import agents_url, ownership
from processes.core import labels
from processes.core.errors import FleethubError
from processes.core.labels import LABELS_MAX
from processes.core.values import HOST_NAME, OP_NAME

COMMANDS_MAX: Final = 1000  # what `register` can hold
TOKEN_BYTES_MAX: Final = 4096
UPTIME: Final = (  # where there is no uptime(1): the same words
    "import os,time\n"
    "up=int(float(open('/proc/uptime').read().split()[0]))\n"
    "print(time.strftime(' %H:%M:%S'),'up',f'{up//86400} days, {up%86400//3600:2}:{up%3600//60:02},  load average:',"
    "', '.join(f'{x:.2f}' for x in os.getloadavg()))"
)


class ConfigError(FleethubError):
    """The agent's file is wrong; the text says where, and what to do."""


Words = Annotated[list[str], Meta(min_length=1)]


class Offer(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One op: what it runs. concurrent: may run beside another command of this host."""

    argv: Words
    timeout_s: Annotated[float, Meta(gt=0, le=30 * 86400)] = 3600.0
    concurrent: bool = False


class File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """agent.toml. ca_file: PEM file of the authority to trust for wss://, instead of the system's.

    labels: what this server says of itself, shown beside the labels that operators set.
    builtins: `uptime` and `facts` are offered; by default only where no commands are listed.
    """

    hub: str
    name: str = ""
    token_file: str = "agent.token"  # noqa: S105 - a path
    heartbeat_s: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    state: str = "agent-state"
    output_mb: Annotated[float, Meta(gt=0, le=1024)] = 16.0
    ca_file: str = ""
    builtins: bool | None = None
    commands: Annotated[dict[str, Offer], Meta(max_length=COMMANDS_MAX)] = {}
    labels: Annotated[dict[str, str], Meta(max_length=LABELS_MAX)] = {}


class Config(msgspec.Struct, frozen=True):
    """The agent's file with its paths made absolute and its defaults filled in."""

    path: Path
    hub: str
    name: str
    token_file: Path
    heartbeat_s: float
    state: Path
    output_bytes_max: int
    ca_file: Path | None
    commands: Mapping[str, Offer]
    labels: Mapping[str, str] = {}


def load(path: Path) -> Config:
    """The file's content, checked; the token can be read.

    Raises: ConfigError, naming the key, the value and the nearest known key.
    """
    path = path.absolute()
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # TOML is UTF-8, whatever the locale
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    _refuse_unknown(values, path)
    try:
        file = msgspec.convert(values, File)
    except msgspec.ValidationError as error:
        text = re.sub(r" - at `\$\.?([^`]*)`", r" for \1", str(error))
        if "argv" in text:
            text += '; argv is a list of words such as ["git", "pull"], not a line for a shell'
        raise ConfigError(f"{path}: {text}") from None
    home = path.parent
    offered = builtins() if file.builtins or (file.builtins is None and not file.commands) else {}
    config = Config(
        path=path,
        hub=file.hub.strip(),
        name=file.name or socket.gethostname(),
        token_file=home / file.token_file,
        heartbeat_s=file.heartbeat_s,
        state=home / file.state,
        output_bytes_max=int(file.output_mb * 1024 * 1024),
        ca_file=home / file.ca_file if file.ca_file else None,
        commands=offered | {op: _resolved(offer, home) for op, offer in file.commands.items()},
        labels=file.labels,
    )
    _check(config, named=bool(file.name))
    read_token(config.token_file)
    _check_closed(config.token_file)
    return config


def read_token(path: Path) -> str:
    """The host's token. Raises: ConfigError."""
    try:
        token = path.read_bytes()[:TOKEN_BYTES_MAX].removeprefix(codecs.BOM_UTF8).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"the token file {path} cannot be read: {why}; it holds what `fleethub enroll NAME` prints"
        ) from None
    if not token or not token.isprintable() or " " in token:
        raise ConfigError(f"the token file {path} does not hold one token; `fleethub enroll NAME` prints it")
    return token


def _check_closed(path: Path) -> None:
    """Refuse a token that any user of this machine may read or replace; a group may read it. Raises: ConfigError."""
    try:
        trusted = {path.stat().st_uid}  # who owns it is not judged: in a container it may be anybody
        wrong = ownership.file_fault(path, ownership.TLS_KEY, trusted, behind_folder=True)
    except OSError as error:
        raise ConfigError(f"the token file {path} cannot be looked at: {error.strerror}") from None
    if wrong is not None:
        raise ConfigError(
            f"the token file {wrong.what}, and whoever has the token is this host: {wrong.mend}; if others had it, "
            "`fleethub enroll NAME --again` prints a new one"
        )


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the authorities of this file, or the system's. Raises: ConfigError."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError among them
        what = "TLS cannot be set up: do SSL_CERT_FILE and SSLKEYLOGFILE name what is there?"
        raise ConfigError(
            f"{f'ca_file = {ca_file} holds no certificate in PEM' if ca_file else what}: {error}"
        ) from None


def builtins() -> dict[str, Offer]:
    """What an agent without commands of its own offers: looks, no changes."""
    uptime = [found] if (found := shutil.which("uptime")) else [sys.executable, "-I", "-S", "-c", UPTIME]
    facts = [sys.executable, "-I", "-S", str(Path(__file__).with_name("facts.py"))]
    return {"uptime": Offer(uptime, 30.0, True), "facts": Offer(facts, 30.0, True)}


def _resolved(offer: Offer, home: Path) -> Offer:
    program = offer.argv[0]
    if "/" in program and not program.startswith("/"):
        return msgspec.structs.replace(offer, argv=[str(home / program), *offer.argv[1:]])
    return offer


def _check(config: Config, *, named: bool) -> None:
    try:
        is_tls = agents_url.parsed(config.hub).secure
    except agents_url.BadUrl as error:
        raise ConfigError(f"{config.path}: hub = {config.hub!r} {error}") from None
    if not HOST_NAME.fullmatch(config.name):
        hint = "" if named else ": it is this machine's own; set `name` to the one that it was enrolled under"
        raise ConfigError(
            f"{config.path}: name = {config.name!r} is not a host name (letters, digits, hyphens, dots){hint}"
        )
    for op, offer in config.commands.items():
        if not OP_NAME.fullmatch(op):
            raise ConfigError(f"{config.path}: commands.{op!r}: a name of letters, digits, _ . - is needed, at most 64")
        if any("\0" in word for word in offer.argv):
            raise ConfigError(f"{config.path}: commands.{op}.argv holds a NUL character")
        if not offer.argv[0]:
            raise ConfigError(f"{config.path}: commands.{op}.argv begins with the program's name, which is empty here")
    for key, value in config.labels.items():
        if wrong := labels.complaint(key, value):
            raise ConfigError(f"{config.path}: labels: {wrong}")
    if config.ca_file is not None:
        if not is_tls:
            raise ConfigError(f"{config.path}: ca_file is for wss://, and hub = {config.hub!r} has no TLS")
        try:
            trust(config.ca_file)
        except ConfigError as error:
            raise ConfigError(f"{config.path}: {error}") from None


def _refuse_unknown(values: Mapping[str, Any], path: Path) -> None:
    commands = values.get("commands")
    tables: list[tuple[str, Mapping[str, Any], type[File | Offer]]] = [("", values, File)]
    if isinstance(commands, dict):
        tables += [(f"commands.{op}.", offer, Offer) for op, offer in commands.items() if isinstance(offer, dict)]
    for prefix, table, kind in tables:
        known = [field.name for field in msgspec.structs.fields(kind)]
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1, 0.5)
                hint = f"; did you mean {prefix}{close[0]}?" if close else f"; known are {', '.join(known)}"
                raise ConfigError(f"{path}: unknown key {prefix}{key}{hint}")
