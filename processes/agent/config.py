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

TOKEN_FILE: Final = "agent.token"  # noqa: S105 - a path
COMMANDS_MAX: Final = 1000  # what `register` can hold
TOKEN_BYTES_MAX: Final = 4096
OFFERED: Final = ("argv", "timeout_s", "concurrent", "back_s")  # of an entry, as they are in an offer
REBOOT_S: Final = 60.0  # for the program to tell the init; guess: it waits for an answer on a bus
BACK_S: Final = (
    900.0  # from a reboot's begin to the agent's next connection; guess: servers with much memory take 10 min
)
UPTIME: Final = (  # where there is no uptime(1): the same words
    "import os,time\n"
    "up=int(float(open('/proc/uptime').read().split()[0]))\n"
    "print(time.strftime(' %H:%M:%S'),'up',f'{up//86400} days, {up%86400//3600:2}:{up%3600//60:02},  load average:',"
    "', '.join(f'{x:.2f}' for x in os.getloadavg()))"
)


class ConfigError(FleethubError):
    """The agent's file is wrong; the text says where, and what to do."""


Words = Annotated[list[str], Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0, le=30 * 86400)]


def _said(text: str) -> Meta:
    """Return what docs/settings.md says of a key. It is made of this file by bin/reference."""
    return Meta(description=text)


class Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One operation as it stands in the file. What is not said of a builtin is as `builtins` or `reboot` below say."""

    argv: Annotated[
        Words | msgspec.UnsetType, _said("The program and its arguments: a list of words, not a line for a shell.")
    ] = msgspec.UNSET
    timeout_s: Annotated[
        Seconds | msgspec.UnsetType, _said("It is ended after so many seconds: `timed_out`. By default 3,600.")
    ] = msgspec.UNSET
    concurrent: Annotated[
        bool | msgspec.UnsetType, _said("It may run beside another command of this host. By default not.")
    ] = msgspec.UNSET
    builtin: Annotated[bool, _said("The agent's own `reboot`, `uptime` or `facts`; `argv` may then be left out.")] = (
        False
    )
    back_s: Annotated[
        Seconds | msgspec.UnsetType,
        _said("Of the builtin `reboot`: the machine is back within so many seconds, or it is `lost`. By default 900."),
    ] = msgspec.UNSET


class Offer(msgspec.Struct, frozen=True):
    """One op: what it runs. concurrent: may run beside another command of this host. back_s: it reboots this machine,
    which has booted anew within so many seconds; None: it does not.
    """

    argv: list[str]
    timeout_s: float = 3600.0
    concurrent: bool = False
    back_s: float | None = None


class File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """agent.toml."""

    hub: Annotated[str, _said("The WebSocket of the hub: `wss://fleet.example.org:7701/ws`.")]
    name: Annotated[str, _said("The host's name as it was enrolled. Empty: the machine's host name.")] = ""
    token_file: Annotated[str, _said("The file with the host's token, readable by this user alone.")] = TOKEN_FILE
    heartbeat_s: Annotated[
        float, Meta(ge=0.1, le=3600), _said("Seconds between heartbeats, until the hub tells another interval.")
    ] = 5.0
    state: Annotated[str, _said("The folder of the journal and of what running commands say.")] = "agent-state"
    output_mb: Annotated[
        float, Meta(gt=0, le=1024), _said("So much of one command's output is kept, in MiB; the rest is cut.")
    ] = 16.0
    ca_file: Annotated[str, _said("A PEM file of the authority to trust for `wss://`, instead of the system's.")] = ""
    builtins: Annotated[
        bool | None,
        _said("Offer `uptime` and `facts`. By default only where no commands are listed."),
    ] = None
    commands: Annotated[
        dict[str, Entry], Meta(max_length=COMMANDS_MAX), _said("A table for each operation: `[commands.NAME]`.")
    ] = {}
    labels: Annotated[
        dict[str, str],
        Meta(max_length=LABELS_MAX),
        _said('What this server says of itself, `key = "value"`: shown beside the labels that operators set.'),
    ] = {}


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
        commands=offered | {op: _offer(op, entry, path) for op, entry in file.commands.items()},
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


def reboot() -> Offer:
    """What reboots this machine, by its init. Offered only where the file says so."""
    systemctl = shutil.which("systemctl")
    argv = [systemctl, "reboot"] if systemctl else [shutil.which("shutdown") or "shutdown", "-r", "now"]
    return Offer(argv, REBOOT_S, back_s=BACK_S)


def _offer(op: str, entry: Entry, path: Path) -> Offer:
    """Return the op with what the file leaves out. Raises: ConfigError."""
    known = {**builtins(), "reboot": reboot()} if entry.builtin else {}
    if entry.builtin and op not in known:
        raise ConfigError(f"{path}: commands.{op}: builtin = true is for {', '.join(known)}: give it an argv instead")
    if not entry.builtin and entry.argv is msgspec.UNSET:
        can_be = " or builtin = true" if op in ("reboot", *builtins()) else ""
        raise ConfigError(f"{path}: commands.{op} needs an argv{can_be}: the program and its arguments")
    said = {name: value for name in OFFERED if (value := getattr(entry, name)) is not msgspec.UNSET}
    offer = msgspec.structs.replace(known[op], **said) if entry.builtin else Offer(**said)
    if offer.back_s is not None and not (entry.builtin and op == "reboot"):
        raise ConfigError(f"{path}: commands.{op}.back_s is for [commands.reboot] with builtin = true")
    if offer.back_s is not None and offer.concurrent:
        raise ConfigError(f"{path}: commands.{op}.concurrent: a reboot would end what runs beside it")
    program = offer.argv[0]
    if "/" in program and not program.startswith("/"):
        return msgspec.structs.replace(offer, argv=[str(path.parent / program), *offer.argv[1:]])
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
    tables: list[tuple[str, Mapping[str, Any], type[File | Entry]]] = [("", values, File)]
    if isinstance(commands, dict):
        tables += [(f"commands.{op}.", entry, Entry) for op, entry in commands.items() if isinstance(entry, dict)]
    for prefix, table, kind in tables:
        known = [field.name for field in msgspec.structs.fields(kind)]
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1, 0.5)
                hint = f"; did you mean {prefix}{close[0]}?" if close else f"; known are {', '.join(known)}"
                raise ConfigError(f"{path}: unknown key {prefix}{key}{hint}")
