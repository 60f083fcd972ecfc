"""Settings: `fleethub.toml` of the state folder. FLEETHUB_SECTION_KEY overrides a key; every mistake is named."""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import ipaddress
import os
import pwd
import re
import shlex
import socket
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_type_hints
from urllib.parse import SplitResult, urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from processes.adapters import ownership
from processes.core.alarms import target
from processes.core.connections import Network
from processes.core.errors import FleethubError
from processes.core.travels.operator_requests import OpName, TimeToLive
from processes.core.values import OP_NAME, PROCESSES_MAX, Severity, is_this_machine, process_name

RESERVED: Final = {  # variables that fleethub sets for its own processes; they are not settings
    "FLEETHUB_STATE", "FLEETHUB_CONFIG", "FLEETHUB_PYTHON", "FLEETHUB_GATEWAY_MEMBERS", "FLEETHUB_FANOUT_MEMBERS",
    "FLEETHUB_QUEUES_START", "FLEETHUB_COMMAND_ID", "FLEETHUB_OP", "FLEETHUB_HOST", "FLEETHUB_HUB",
    "FLEETHUB_TOKEN_FILE",
}  # fmt: skip
# in the environment: words, quoted as in a shell
LISTS: Final = {
    "FLEETHUB_ALARMS_URLS", "FLEETHUB_ALARMS_EXEC", "FLEETHUB_ALARMS_HEARTBEAT_EXEC", "FLEETHUB_OPERATORS_FRESH_FOR",
    "FLEETHUB_OPERATORS_TRUSTED_PROXIES",
}  # fmt: skip
SOCKET_PATH_MAX: Final = 100  # bytes; unix(7): sun_path holds 108, and temporary names need a few


class SettingsError(FleethubError):
    """A setting is wrong; the text says which one and what to do."""


class NotOurs(SettingsError):
    """The state folder belongs to another user, and this user may not read it."""


Positive = Annotated[float, Meta(gt=0, le=1e9)]
Memories = Annotated[int, Meta(ge=0, le=1 << 24)]
Several = Annotated[int, Meta(ge=1, le=PROCESSES_MAX)]


def _said(text: str) -> Meta:
    """Return what docs/settings.md says of a key. It is made of this file by bin/reference."""
    return Meta(description=text)


class Operators(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where operators connect: page, API and metrics."""

    listen: Annotated[str, _said("HOST:PORT or [IPV6]:PORT. `[::]:7700` takes IPv4 too.")] = "127.0.0.1:7700"
    url: Annotated[
        str,
        _said(
            "What people type, if a proxy or another name stands before it. It may have a path. It decides sign-in "
            "link, cookies and allowed origins."
        ),
    ] = ""
    trusted_proxies: Annotated[
        list[str], _said("Addresses and networks of proxies whose `X-Forwarded-For` is believed. By default nobody's.")
    ] = []
    fresh_for: Annotated[
        list[OpName],
        _said(
            "What a browser's session may do only within `fresh_s` of its sign-in: operations of hosts such as "
            "`reboot`, or of the API by their ids (`create_token`). A token is not asked: it signs in each time."
        ),
    ] = []
    fresh_s: Annotated[float, Meta(ge=10, le=12 * 3600), _said("Seconds; see `fresh_for`.")] = 300.0

    def proxies(self) -> list[Network]:
        """Return the trusted proxies. Raises: ValueError, if one is no address or network."""
        return [ipaddress.ip_network(each) for each in self.trusted_proxies]


class Agents(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where agents connect."""

    listen: Annotated[str, _said("HOST:PORT or [IPV6]:PORT.")] = "127.0.0.1:7701"
    url: Annotated[str, _said("What agents dial, if it is not `listen` but a proxy or another name.")] = ""


class Tls(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """TLS on both ports. A renewed certificate is used within seconds."""

    certificate: Annotated[str, _said("The path of a PEM file with the whole chain. Both paths, or none.")] = ""
    key: Annotated[str, _said("The path of its key, a PEM file.")] = ""


class Queues(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where the queues between the processes are. By default a process of fleethub's has them in its memory."""

    url: Annotated[
        str,
        _said(
            "A PostgreSQL (14 or newer) that has them instead: `postgresql://fleethub@db.example.org/fleethub`. No "
            "password: libpq finds it in `~/.pgpass`, or uses a certificate. Needs `fleethub[postgres]`."
        ),
    ] = ""


class Gateway(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The processes that hold the agents' connections."""

    processes: Annotated[Several, _said("How many share the agents' port.")] = 1
    own_user: Annotated[bool, _said("Started as root, they become a user of their own.")] = True


class Fanout(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The processes that serve operators."""

    processes: Annotated[Several, _said("How many share the operators' port.")] = 1
    own_user: Annotated[bool, _said("Started as root, they become a user of their own.")] = True


class Watchdog(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How patient the watchdog is."""

    stall_s: Annotated[
        float, Meta(ge=0.2, le=600), _said("A process without a turn for so many seconds is frozen.")
    ] = 2.0


class Commands(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How long commands wait."""

    ttl_s: Annotated[
        TimeToLive, _said("A command waits for its host for so many seconds, if its operator names no other time.")
    ] = 3600.0
    lost_after_s: Annotated[
        Positive, _said("A sent command is `lost` after so many seconds of silence of its host.")
    ] = 86400.0


class Retention(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How much of the past is kept."""

    commands_days: Annotated[Positive, _said("Days: commands that have ended, with their runs and output.")] = 90.0
    output_mb: Annotated[Positive, _said("MiB: output of all commands, the newest first.")] = 1024.0
    incidents: Annotated[int, Meta(ge=1, le=1_000_000), _said("How many incidents.")] = 200
    evidence_mb: Annotated[Positive, _said("MiB: their evidence, the newest first.")] = 256.0


class AlarmTarget(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One further target: one of url, webhook and exec."""

    url: Annotated[str, _said("A URL of apprise.")] = ""
    webhook: Annotated[str, _said("A URL that gets JSON by POST.")] = ""
    secret: Annotated[str, _said("Signs what the webhook gets (Standard Webhooks).")] = ""
    exec: Annotated[list[str], _said("A program with its arguments.")] = []
    severity: Annotated[Severity | None, _said("The least that it is told; by default `alarms.severity`.")] = None
    query: Annotated[str, _said("It is told only of the hosts that this finds, by names and labels.")] = ""


class Alarms(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Who is told when something is wrong. The file must be this user's alone (chmod 600): the URLs hold passwords."""

    urls: Annotated[
        list[str], _said("URLs of [apprise](https://github.com/caronc/apprise): mail, chat, webhooks.")
    ] = []
    exec: Annotated[list[str], _said("A program with its arguments. It gets the alarm as JSON on its stdin.")] = []
    severity: Annotated[Severity, _said("The least that is told: `info`, `warning` or `critical`.")] = Severity.WARNING
    targets: Annotated[
        list[AlarmTarget],
        _said("Further targets, each a table `[[alarms.targets]]` with a severity and a query of its own (alarms.md)."),
    ] = []
    heartbeat_url: Annotated[
        str, _said("A URL that is called each minute while all goes round: a dead man's switch of somebody outside.")
    ] = ""
    heartbeat_exec: Annotated[list[str], _said("A program that is run instead of that, or too.")] = []


class Memory(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How many MiB one process of a kind may use before it is replaced; 0: no limit."""

    queues_mb: Memories = 1024
    hub_mb: Memories = 1024
    gateway_mb: Memories = 2048
    fanout_mb: Memories = 2048
    watchdog_mb: Memories = 256
    agent_mb: Memories = 512

    def bytes_max(self, kind: str) -> int:
        """Return the limit of a kind of process; 0: none."""
        found: int = getattr(self, f"{kind}_mb")
        return found << 20


class Machine(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """This machine among those of an installation that is more than one."""

    name: Annotated[
        str, Meta(max_length=64), _said("Its name; each machine has another. By default the host's own name.")
    ] = ""


class StoreAt(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where the truth is. Without it: SQLite in the state folder."""

    url: Annotated[
        str,
        _said(
            "A PostgreSQL as libpq names it, `postgresql://fleethub@db1,db2/fleethub?sslmode=verify-full`, with the "
            "extra `postgres`. Passwords stand in ~/.pgpass, never here."
        ),
    ] = ""


class HubLease(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The process that holds the state. With `store.url` one hub of several leads."""

    lease_s: Annotated[
        float, Meta(ge=2, le=30), _said("A hub that stands by takes over so many seconds after the other's last sign.")
    ] = 3.0


class Metrics(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What `/metrics` has."""

    hosts: Annotated[bool, _said("Also a dozen series for each host. For small fleets only.")] = False


class Drills(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Rehearsals (`fleethub drill`)."""

    enabled: Annotated[bool, _said("Drills may cause faults inside the processes.")] = False


class File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """fleethub.toml."""

    insecure: Annotated[bool, _said("Listen beyond loopback without TLS: a proxy in front does it.")] = False
    operators: Operators = Operators()
    agents: Agents = Agents()
    tls: Tls = Tls()
    queues: Queues = Queues()
    gateway: Gateway = Gateway()
    fanout: Fanout = Fanout()
    watchdog: Watchdog = Watchdog()
    commands: Commands = Commands()
    retention: Retention = Retention()
    alarms: Alarms = Alarms()
    memory: Memory = Memory()
    metrics: Metrics = Metrics()
    machine: Machine = Machine()
    store: StoreAt = StoreAt()
    hub: HubLease = HubLease()
    drills: Drills = Drills()


class Settings(msgspec.Struct, frozen=True):
    """The settings of one installation, and the paths in its state folder."""

    state: Path
    config: Path
    file: File
    run_folder: Path | None = None  # `run`, for a process that stands in it and cannot reach it by its whole path

    @property
    def run(self) -> Path:
        """The folder of sockets, pulses and locks; 0700, or 0710 for lesser users (adapters/own_user.py)."""
        return self.run_folder or self.state / "run"

    @property
    def pulses(self) -> Path:
        """The folder of pulses: one file a process."""
        return self.run / "pulse"

    @property
    def log(self) -> Path:
        """The folder of logs: one rotating log a process."""
        return self.state / "log"

    @property
    def database(self) -> Path:
        """The database of hosts, commands and output. Only the hub writes it."""
        return self.state / "fleet.db"

    @property
    def machine(self) -> str:
        """The name of this machine among those of the installation."""
        return self.file.machine.name or socket.gethostname()

    @property
    def epoch_file(self) -> Path:
        """The newest hub epoch. Each hub writes it when it begins, so without this file no hub ever ran."""
        return self.state / "epoch"

    @property
    def incidents_database(self) -> Path:
        """The database of incidents. Only the watchdog writes it."""
        return self.state / "incidents.db"

    @property
    def rules(self) -> Path:
        """Which conditions of hosts somebody is to be told of (core/conditions/rules.py). The operator writes it."""
        return self.state / "rules.toml"

    @property
    def alarms(self) -> Path:
        """The state of the alarms, with how far each target was told. Only the watchdog writes it."""
        return self.state / "alarms.json"

    @property
    def evidence(self) -> Path:
        """The folder of evidence: one folder an incident."""
        return self.state / "incidents"

    @property
    def replaced(self) -> Path:
        """The folder of databases that were replaced by a restored one."""
        return self.state / "replaced"

    @property
    def histories(self) -> Path:
        """The folder of the hosts' histories: one file a fanout."""
        return self.state / "history"

    @property
    def operator_token(self) -> Path:
        """The installation's own admin token; 0600."""
        return self.state / "operator.token"

    @property
    def agent_file(self) -> Path:
        """The settings of this machine's own agent, made by `up`."""
        return self.state / "agent.toml"

    @property
    def agent_token(self) -> Path:
        """The token of this machine's own agent; 0600."""
        return self.state / "agent.token"

    @property
    def queues_socket(self) -> Path:
        """The socket on which `queues` listens."""
        return self.run / "queues.sock"

    @property
    def supervisor_socket(self) -> Path:
        """The socket on which supervisord's XML-RPC listens."""
        return self.run / "supervisor.sock"

    @property
    def agents_url(self) -> str:
        """The URL that agents dial: agents.url, or else the port of agents.listen at the name that operators use."""
        if self.file.agents.url:
            return self.file.agents.url
        host, port = address(self.file.agents.listen)
        if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not listened on
            host = urlsplit(self.file.operators.url).hostname or socket.gethostname()
        return f"{'wss' if self.file.tls.certificate else 'ws'}://{joined(host, port)}/ws"

    @property
    def judging(self) -> Path:
        """The lock of the fanout that judges the hosts' conditions."""
        return self.histories / "judging"

    @property
    def report(self) -> Path:
        """The watchdog's status as JSON (core/shown/status.py), replaced by rename in each of its turns."""
        return self.run / "watchdog.json"

    @property
    def report_reserve(self) -> Path:
        """The same while the disk is full: it has its room beforehand (adapters/state/reserved_file.py)."""
        return self.run / "watchdog.reserve"

    @property
    def wanted(self) -> Path:
        """The state that the operator wants of each process, as JSON {NAME: "running" | "stopped"}.

        A process that is not in it is wanted running, but for the agent.
        """
        return self.run / "wanted.json"

    @property
    def canary(self) -> Path:
        """Hashes of the canary's tokens (core/shown/status.py, CanaryFile); 0600, new at each start of the watchdog."""
        return self.run / "canary.json"

    @property
    def failpoint(self) -> Path:
        """The place at which the hub kills itself or hangs (adapters/failpoint.py); only where drills are enabled."""
        return self.run / "failpoint"

    @property
    def poison_row(self) -> Path:
        """The id of a row that freezes a fanout (fanout/poison_row.py); only where drills are enabled."""
        return self.run / "poison_row"

    @property
    def deaf(self) -> Path:
        """The name of a process that is to accept no more (adapters/state/deaf_file.py); only where drills are
        enabled.
        """
        return self.run / "deaf"

    def names(self, kind: str) -> list[str]:
        """Return the names of the processes of a kind, in order; none of `queues`, if PostgreSQL has the queues."""
        if kind == "queues" and self.file.queues.url:
            return []
        count = {"gateway": self.file.gateway.processes, "fanout": self.file.fanout.processes}.get(kind, 1)
        return [process_name(kind, number, count) for number in range(count)]

    def all_names(self) -> list[str]:
        """Return the name of every process of the installation, in start order."""
        return [name for kind in KINDS for name in self.names(kind)]


KINDS: Final = ("queues", "hub", "gateway", "fanout", "watchdog", "agent")


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings: the environment overrides the file, which overrides the defaults.

    Raises: SettingsError, with the key, the value and the nearest known key.
    """
    state = Path(environ.get("FLEETHUB_STATE") or default_state()).absolute()
    if len(os.fsencode(state / "run" / "supervisor.sock")) > SOCKET_PATH_MAX:
        raise SettingsError(
            f"the path of the state folder is too long for a socket in it: {state}; choose a shorter FLEETHUB_STATE"
        )
    named = environ.get("FLEETHUB_CONFIG")
    config = Path(named or state / "fleethub.toml").absolute()
    values: dict[str, Any] = {}
    try:
        text = config.read_bytes().decode("utf-8-sig")  # as TOML has it, whatever the locale; editors add a BOM
        import tomllib  # noqa: PLC0415  # only where there is such a file

        values = tomllib.loads(text)
        trusted = ownership.owners() | {state.stat().st_uid} if state.exists() else ownership.owners()
        if wrong := ownership.file_fault(config, ownership.CHANGEABLE, trusted, behind_folder=True):
            raise SettingsError(f"{wrong.what}, so it may say anything: {wrong.mend}")
    except (FileNotFoundError, NotADirectoryError):  # `up` says so if the folder itself is missing
        if named:
            raise SettingsError(f"FLEETHUB_CONFIG names {config}, which does not exist") from None
    except PermissionError:
        raise NotOurs(closed_to_us(config if named or os.access(state, os.R_OK | os.X_OK) else state)) from None
    except (OSError, ValueError) as error:  # ValueError: no TOML, or no UTF-8
        raise SettingsError(f"{config} cannot be read: {error}") from None
    known = dict(_keys())
    for name, value in environ.items():
        if name.startswith("FLEETHUB_") and name not in RESERVED and not _is_of_kubernetes(name, value):
            if name not in known:
                raise SettingsError(f"unknown setting {name} in the environment{_nearest(name, [*known, *RESERVED])}")
            section, key = known[name]
            (values.setdefault(section, {}) if section else values)[key] = (
                _words(name, value) if name in LISTS else value
            )
    _refuse_unknown(values, config)
    try:
        file = msgspec.convert(values, File, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{config} or the environment: {_readable(error)}") from None
    _check(file)
    operators = msgspec.structs.replace(file.operators, url=_ascii_url("operators.url", file.operators.url))
    return Settings(state, config, msgspec.structs.replace(file, operators=operators))


def load_anyway(environ: Mapping[str, str] = os.environ) -> tuple[Settings, str]:
    """Return the settings and an empty text, or, if they have a mistake, the defaults and a text about the mistake.

    For commands that must answer whatever is wrong. The state folder is the same in both cases. Raises: NotOurs.
    """
    try:
        return load(environ), ""
    except NotOurs:
        raise
    except SettingsError as error:
        state = Path(environ.get("FLEETHUB_STATE") or default_state()).absolute()
        config = Path(environ.get("FLEETHUB_CONFIG") or state / "fleethub.toml").absolute()
        return Settings(state, config, File()), str(error)


def closed_to_us(path: Path) -> str:
    """Return a text for a path that this user may not read: who owns it, and what to do.

    If the path cannot even be seen, the text names the owner of the nearest folder above it that can.
    """
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            owner, what = place.stat().st_uid, "it" if place == path else str(place)
            closed = f"{path} cannot be read by {user_name(os.geteuid())}"
            return f"{closed}: {what} belongs to {user_name(owner)}; run this as that user: {as_user(owner)} …"
    return f"{path} cannot be read by {user_name(os.geteuid())}"


def address(listen: str) -> tuple[str, int]:
    """Return host and port of a `listen` setting; an IPv6 address without its brackets. Raises: SettingsError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"{listen!r} is not HOST:PORT")
    if ":" in host or "[" in host:
        try:
            if "%" in host or (host[0], host[-1]) != ("[", "]"):
                raise ValueError  # a zone cannot stand in supervisord.conf
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise SettingsError(
                f"{listen!r} is not [IPV6]:PORT: it looks like [::]:7700 or [2001:db8::7]:7700"
            ) from None
    return host, int(port)


def joined(host: str, port: int) -> str:
    """Return HOST:PORT as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(listen: str) -> tuple[str, int]:
    """Return host and port by which this machine itself reaches a `listen` setting. Raises: SettingsError."""
    host, port = address(listen)
    return ("127.0.0.1" if host in ("0.0.0.0", "::") else host), port  # noqa: S104  # [::] takes IPv4 too


def default_state() -> Path:
    """Return the state folder if none is named: `var/` of a checkout, else /var/lib/fleethub."""
    home = checkout()
    return home / "var" if home else Path("/var/lib/fleethub")


def checkout() -> Path | None:
    """Return the checkout that this code runs from; None if it is installed as a package."""
    home = Path(__file__).resolve().parents[2]
    installed = home == Path(sysconfig.get_paths()["purelib"]).resolve()
    return home if not installed and (home / "supervisord.conf").exists() else None


def user_name(uid: int) -> str:
    """Return the name of a user, or words with its number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def as_user(uid: int) -> str:
    """Return what to type before a command so that this user runs it."""
    try:
        return f"sudo -u {shlex.quote(pwd.getpwuid(uid).pw_name)}"
    except KeyError:
        return f"sudo -u '#{uid}'"


def _keys() -> Iterator[tuple[str, tuple[str, str]]]:
    for field in msgspec.structs.fields(File):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            for inner in msgspec.structs.fields(field.type):
                yield f"FLEETHUB_{field.name}_{inner.name}".upper(), (field.name, inner.name)
        else:
            yield f"FLEETHUB_{field.name}".upper(), ("", field.name)


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Return whether Kubernetes or Docker has set the variable, for a service that is called fleethub."""
    found = re.fullmatch(r"FLEETHUB(_\w+)?_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)", name)
    return found is not None and (not name.endswith("_PORT") or bool(re.fullmatch(r"(\w+://.*)?\d+", value)))


def _ascii_url(name: str, url: str) -> str:
    """Return the URL as browsers send its host: an international name in its ASCII form. Raises: SettingsError."""
    if url.isascii():
        return url
    import httpx  # noqa: PLC0415  # rarely needed, and slow to import

    parts = urlsplit(url)
    try:
        host = httpx.URL(f"{parts.scheme}://{parts.netloc}").raw_host.decode("ascii")
    except httpx.InvalidURL as error:
        raise SettingsError(f"{name} = {url!r}: {error}") from None
    port = "" if parts.port is None else f":{parts.port}"
    return urlunsplit(parts._replace(netloc=host + port))


def _refuse_unknown(values: Mapping[str, Any], config: Path) -> None:
    known = {f"{section}.{key}" if section else key for _, (section, key) in _keys()}
    sections = {name.partition(".")[0] for name in known if "." in name}
    for name, value in values.items():
        inner = [f"{name}.{key}" for key in value] if name in sections and isinstance(value, dict) else [name]
        for key in inner:
            if key not in known and not (key in sections and not isinstance(value, dict)):
                raise SettingsError(f"unknown setting {key} in {config}{_nearest(key, sorted(known))}")


def _nearest(name: str, known: list[str]) -> str:
    import difflib  # noqa: PLC0415  # for a mistake alone

    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _words(name: str, value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise SettingsError(f"{name} is a list of words, quoted as in a shell: {error}") from None


def _readable(error: msgspec.ValidationError) -> str:
    text = re.sub(r" - at `\$\.?([^`]*)`", r" for \1", str(error))
    choices = _choices(text.rpartition(" for ")[2]) if text.startswith("Invalid enum value") else ()
    return f"{text}; it is one of {', '.join(choices)}" if choices else text


def _choices(setting: str) -> list[str]:
    """Return the values that a setting of a few words may have, by its path; none for any other."""
    kind: Any = File
    for name in re.sub(r"\[[^\]]*\]", "", setting).split("."):
        hints = get_type_hints(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else {}
        kind = hints.get(name)
        while get_args(kind):  # list[X], X | None
            kind = get_args(kind)[0]
    return [str(each) for each in kind] if isinstance(kind, type) and issubclass(kind, enum.Enum) else []


def _check(file: File) -> None:
    for name, listen in (("operators.listen", file.operators.listen), ("agents.listen", file.agents.listen)):
        try:
            host, _ = address(listen)
        except SettingsError as error:
            raise SettingsError(f"{name}: {error}") from None
        if not is_this_machine(host) and not file.tls.certificate and not file.insecure:
            raise SettingsError(
                f"{name} = {listen!r} is reachable from elsewhere and there is no TLS: "
                "set tls.certificate and tls.key, or insecure = true behind a proxy that does TLS"
            )
    try:
        file.operators.proxies()
    except ValueError as error:
        raise SettingsError(
            f"operators.trusted_proxies: {error}; it is a list of addresses and networks: 10.0.0.7, 10.1.0.0/16"
        ) from None
    for op in file.operators.fresh_for:
        if not OP_NAME.fullmatch(op):
            raise SettingsError(f"operators.fresh_for: {op!r} is not the name of an operation, such as reboot")
    for name, url in (("operators.url", file.operators.url), ("agents.url", file.agents.url)):
        try:
            _ = urlsplit(url).port
        except ValueError as error:
            raise SettingsError(f"{name} = {url!r} is not a URL: {error}") from None
    if file.operators.url and not (
        urlsplit(file.operators.url).scheme in ("http", "https") and urlsplit(file.operators.url).hostname
    ):
        raise SettingsError(
            f"operators.url = {file.operators.url!r} is not what people type: it looks like https://fleet.example.org"
        )
    if file.operators.url and (wrong := _beside_the_host(urlsplit(file.operators.url))):
        raise SettingsError(
            f"operators.url = {file.operators.url!r}: {wrong}; it looks like https://fleet.example.org, "
            "or https://example.org/fleet below a path"
        )
    if file.agents.url and urlsplit(file.agents.url).scheme not in ("ws", "wss"):
        raise SettingsError(
            f"agents.url = {file.agents.url!r} is not the URL of an agents' port: "
            "it looks like wss://fleet.example.org/ws"
        )
    if wrong := _database_fault(file.queues.url):
        raise SettingsError(f"queues.url: {wrong}")
    if bool(file.tls.certificate) != bool(file.tls.key):
        raise SettingsError("tls.certificate and tls.key belong together: set both or none")
    for name in filter(None, (file.tls.certificate, file.tls.key)):
        if not os.access(name, os.R_OK):
            raise SettingsError(f"tls: {name} cannot be read")
    if file.machine.name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", file.machine.name):
        raise SettingsError(f"machine.name = {file.machine.name!r} is not a name of letters, digits and ._-")
    if fault := store_fault(file.store.url):
        raise SettingsError(f"store.url: {fault}")
    _check_alarms(file.alarms)


def store_fault(url: str) -> str:
    """Return what is wrong with where the store is, without a secret; empty: nothing."""
    if not url:
        return ""
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        return "it is not the URL of a PostgreSQL; it looks like postgresql://fleethub@db1,db2/fleethub"
    if "@" in parts.netloc and ":" in parts.netloc.rpartition("@")[0]:
        return "a password has no place in it: write it into ~/.pgpass of the user that runs fleethub"
    if "password=" in parts.query:
        return "a password has no place in it: write it into ~/.pgpass of the user that runs fleethub"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed, which reaches PostgreSQL: pip install 'fleethub[postgres]'"
    return ""


def _beside_the_host(url: SplitResult) -> str:
    """Return what is wrong with what stands beside the host in the URL that people type; empty: nothing."""
    if "@" in url.netloc:
        return "a user's name has no place in it"
    if url.query or url.fragment:
        return "it ends with the path"
    if not re.fullmatch(r"(/(?!\.)[A-Za-z0-9._~-]+)*/?", url.path):
        return "its path is not made of plain letters, digits and -._~"
    return ""


def _database_fault(url: str) -> str:
    """Return what is wrong with the URL of a PostgreSQL, without its secrets; empty: nothing, or there is none."""
    shape = "it looks like postgresql://fleethub@db.example.org/fleethub"
    scheme, colon, rest = url.partition("://")
    if url and (scheme not in ("postgresql", "postgres") or not colon or not url.isprintable() or " " in url):
        return f"this is not the URL of a PostgreSQL: {shape}"
    if ":" in rest.partition("/")[0].rpartition("@")[0] or re.search(r"[?&]password=", rest):
        return f"a password has no place in it: put it into ~/.pgpass, or use a certificate; {shape}"
    return ""


def _target_fault(each: AlarmTarget) -> str:
    """Return what is wrong with a target, without its secrets; empty: nothing."""
    # a third of the start of `status`, and few have targets of their own
    from processes.core.alarms import webhook  # noqa: PLC0415
    from processes.core.shown import query  # noqa: PLC0415

    if sum(map(bool, (each.url, each.webhook, each.exec))) != 1:
        return "give one of url, webhook and exec"
    if each.url and not target.is_url(each.url):
        return "its url is not that of a target, such as mailto://USER:PASSWORD@HOST"
    if each.webhook and not _is_http(each.webhook):
        return "its webhook is not a URL that begins with http:// or https://"
    if each.secret and not each.webhook:
        return "a secret belongs to a webhook"
    if each.exec and not each.exec[0]:
        return "the first word of exec is the program to run"
    try:
        if each.secret:
            webhook.key_of(each.secret)
        query.parse(each.query)
    except ValueError as error:
        return str(error)
    except query.QueryError as error:
        return f"its query: {error.message}"
    return ""


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False


def _check_alarms(alarms: Alarms) -> None:
    for number, url in enumerate(alarms.urls):
        if not target.is_url(url):  # the URL is never shown: it may hold a password
            raise SettingsError(
                f"alarms.urls: number {number + 1} is not the URL of a target, such as mailto://USER:PASSWORD@HOST"
            )
    for number, each in enumerate(alarms.targets, 1):
        if wrong := _target_fault(each):
            raise SettingsError(f"alarms.targets: number {number}: {wrong}")
    if len(alarms.urls) + len(alarms.targets) > target.TARGETS_MAX:
        count = len(alarms.urls) + len(alarms.targets)
        raise SettingsError(f"alarms: {count} targets are more than {target.TARGETS_MAX}")
    if alarms.heartbeat_url and not _is_http(alarms.heartbeat_url):
        raise SettingsError("alarms.heartbeat_url is not a URL that begins with http:// or https://")
    if alarms.heartbeat_exec and not alarms.heartbeat_exec[0]:
        raise SettingsError("alarms.heartbeat_exec: the first word is the program to run")
    if alarms.exec and not alarms.exec[0]:
        raise SettingsError("alarms.exec: the first word is the program to run")
