"""What the own users of gateways and fanouts can get at, and what they cannot; with real files, sockets, processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from doubles.deadline import WAIT_S, until

from processes.adapters import own_user, ownership
from processes.adapters.queue_link import QueueLink
from processes.adapters.settings import Settings, load
from processes.adapters.state import (
    canary_file,
    contested,
    deaf_file,
    durable,
    fleet_db,
    private_files,
    pulse_file,
    sightings,
    signin_codes,
)  # fmt: skip
from processes.adapters.state.pulse_file import PulseFile
from processes.core.errors import ResourceError
from processes.core.shown.status import CanaryFile
from processes.core.values import Role, digest
from processes.queues.server import Server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
LOG = structlog.stdlib.get_logger("fleethub")

ATTEMPT = """
from processes.core.travels.queue_calls import QueueRefused
done = {}

def attempt(name, call):
    try:
        call()
        done[name] = "done"
    except OSError as error:
        done[name] = type(error).__name__
    except QueueRefused as error:
        done[name] = error.code
"""  # in front of both programs
CHILD = """
import asyncio, json, os, signal, socket, sys
from processes.adapters import logs, own_user, rights
from processes.adapters.queue_link import QueueLink, QueuesAway
from processes.adapters.settings import load
from processes.adapters.state import asked_to_end, canary_file, contested, deaf_file, durable, gave_up, sightings
from processes.adapters.state.pulse_file import PulseFile
from processes.core.travels import messages
from processes.core.travels.queue_calls import EPOCH_MAX, QueueRefused
from processes.core.values import Position
outside = load()
number = own_user.of(outside.state, "gateway")
rights.let_none_in()
inside = own_user.prepare(outside, "gateway")
for place in (asked_to_end.place(inside.run, "gateway"), gave_up.place(inside.run, "gateway")):
    durable.hold(place)
log = logs.open_log(inside.log, "gateway", held=True)
pulse = PulseFile(inside.pulses, "gateway")
own_user.become(number)

def connect(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

for name in ("fleet.db", "operator.token", "agent.token", "fleethub.toml", "run/cookie.key", "run/pulse/hub",
             "run/wanted.json", "log/hub.log", "log/gateway.log", "run/lock/up"):
    attempt(f"read {name}", lambda: open(outside.state / name).read())
    attempt(f"read ../{name}", lambda: open(f"../{name}").read())
    attempt(f"write {name}", lambda: open(outside.state / name, "a").write("x"))
    if name.startswith("run/"):
        attempt(f"read it from run: {name}", lambda: open(name[4:]).read())
        attempt(f"replace {name}", lambda: os.rename("canary.json", name[4:]))
attempt("list", lambda: os.listdir("."))
attempt("make", lambda: open("new", "w"))
attempt("link", lambda: os.symlink("/etc/shadow", "farewell/hub"))
attempt("rename own folder", lambda: os.rename("contested", "other"))
attempt("make a folder", lambda: os.mkdir("other"))
attempt("change canary", lambda: open("canary.json", "a"))
attempt("supervise", lambda: connect("supervisor.sock"))
attempt("kill root's", lambda: os.kill(os.getppid(), 0))
attempt("be root", lambda: os.setuid(0))
attempt("have its group", lambda: os.setgid(0))
attempt("chown", lambda: os.chown("queues.key", number, number))
attempt("shadow", lambda: open("/etc/shadow").read())
contested.say(inside.run, "web1")
sightings.say(inside.run, sightings.IMPERSONATED, "web1", "it is told")
done["canary"] = canary_file.read(inside.canary).agent_token_hash
asked_to_end.say(inside.run, "gateway")
gave_up.say(inside.run, "gateway", "a long reason")
gave_up.say(inside.run, "gateway", "a reason")
for turn in range(3):
    pulse.beat()
log.info("a line")
logs.close()

async def call():
    link = QueueLink(inside.queues_socket, "gateway", timeout_s=10.0)
    link.epoch = EPOCH_MAX - 1
    own = messages.deliveries_of("gateway")
    said = messages.encode(messages.HostFlooded("gateway/1", "h", "web1"))
    forged = messages.encode(messages.SnapshotWanted("fanout", "1"))
    for name, what in (
        ("say", lambda: link.append(messages.EVENTS, [said])), ("forge", lambda: link.append(messages.EVENTS, [forged])),
        ("deliver", lambda: link.append(own, [said])), ("hear", lambda: link.read(own, Position(0, 0), wait_s=0.0)),
        ("overhear", lambda: link.read(messages.EVENTS, Position(0, 0), wait_s=0.0)), ("figures", link.stats),
    ):
        try:
            await what()
            done[name] = "done"
        except QueueRefused as error:
            done[name] = error.code
    await link.close()

async def deafen():
    heard = asyncio.Event()
    following = asyncio.create_task(deaf_file.follow(inside, "gateway", heard.set))
    await heard.wait()
    following.cancel()

asyncio.run(call())
asyncio.run(deafen())
done["pid"], done["number"], done["alarms"] = os.getpid(), number, inside.file.alarms.urls
print(json.dumps(done))
"""

FANOUT = """
import asyncio, json, os, sys, time
from pathlib import Path
from processes.adapters import own_user, ownership, rights
from processes.adapters.queue_link import QueueLink
from processes.adapters.settings import load
from processes.adapters.state import fleet_db, history_file, pulse_file, session_files, sightings, signin_codes
from processes.adapters.state.session_files import SessionFile
from processes.core.travels import messages
from processes.core.travels.queue_calls import EPOCH_MAX, QueueRefused
from processes.core.values import Position, Role
outside = load()
rights.let_none_in()
inside = own_user.prepare(outside, "fanout")
there = {path: path.is_dir() for path in (outside.state, *outside.state.rglob("*")) if not path.is_socket()}
own_user.become(own_user.of(outside.state, "fanout"), own_user.groups(outside, "fanout"))

def tokens():
    return sorted(each.label for each in fleet_db.reading(inside.database, fleet_db.tokens))

for path, is_folder in there.items():
    name = str(path.relative_to(outside.state))
    attempt(f"read {name}", lambda: os.listdir(path) if is_folder else path.read_bytes())
    attempt(f"write {name}", lambda: (os.mkdir(path / "x"), os.rmdir(path / "x")) if is_folder else open(path, "r+b"))
    attempt(f"remove {name}", lambda: os.rename(path, f"{path}.x"))
    if done[f"remove {name}"] == "done":
        os.rename(f"{path}.x", path)
for name, call in {
    "kill root's": lambda: os.kill(os.getppid(), 0), "be root": lambda: os.setuid(0),
    "read its memory": lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
    "read its variables": lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(),
    "be the gateway": lambda: os.setuid(own_user.of(outside.state, "gateway")),
    "shadow": lambda: open("/etc/shadow").read(),
}.items():
    attempt(name, call)
told = {"done": done, "tokens": tokens(), "key": len(session_files.cookie_key(inside.run))}
told["own"] = ownership.read_private(inside.operator_token, 100).decode()
told["ended"] = sorted(session_files.ended(inside.run, 3600.0, None))
told["listed"] = [id for id, _ in session_files.listed(inside.run)]
session_files.put(inside.run, "s" * 8, SessionFile("ann", Role.VIEWER, time.time()), 3600.0)
told["put"] = sorted(id for id, _ in session_files.listed(inside.run))
session_files.end(inside.run, "s" * 8, 9e9)
told["over"] = sorted(session_files.ended(inside.run, 3600.0, None))
told["code"] = [signin_codes.use(inside.run, "code"), signin_codes.use(inside.run, "code")]
told["history"] = history_file.read(inside.histories / "fanout").decode()
history_file.write(inside.histories / "fanout", b"later")
sightings.say(inside.run, sightings.GUESSED, "fanout", "a hundred")
told["pulse"] = pulse_file.last(inside.pulses, "hub").turn
told["alarms"] = inside.file.alarms.urls

async def call():
    link = QueueLink(inside.queues_socket, "fanout", timeout_s=10.0)
    link.epoch = EPOCH_MAX - 1
    own = messages.broadcasts_of("fanout")
    for name, what in {
        "ask": lambda: link.append(messages.EVENTS, [messages.encode(messages.SnapshotWanted("fanout", "1"))]),
        "as another": lambda: link.append(messages.EVENTS, [messages.encode(messages.SnapshotWanted("fanout:2", "1"))]),
        "as an agent": lambda: link.append(messages.EVENTS, [messages.encode(messages.HostFlooded("g/1", "h", "web1"))]),
        "tell fanouts": lambda: link.append(own, [b"x"]), "hear": lambda: link.read(own, Position(0, 0), wait_s=0.0),
        "tell agents": lambda: link.append(messages.deliveries_of("gateway"), [b"x"]),
        "overhear": lambda: link.read(messages.EVENTS, Position(0, 0), wait_s=0.0), "figures": link.stats,
    }.items():
        try:
            await what()
            done[name] = "done"
        except QueueRefused as error:
            done[name] = error.code
    await link.close()

asyncio.run(call())
if sys.stdin.readline():  # the hub has closed its database: there is no log of it
    told["log"] = os.path.exists(f"{inside.database}-wal")
    told["tokens without a log"] = tokens()
print(json.dumps(told))
"""
# what a fanout's user may do with the files and folders of a state folder
FANOUT_READS = {
    "fleet.db", "fleet.db-wal", "fleet.db-shm", "operator.token", "run/cookie.key", "run/pulse/hub", "run/wanted.json",
    "run/canary.json", "run/queues.key", "run/gave_up/hub", "incidents/1/log.txt",
}  # fmt: skip
FANOUT_OWNS = {
    "history", "history/fanout", "run/codes", "run/guessed", "run/sessions", "run/sessions/before", "run/signed_out",
    "run/signed_out/before",
}  # fmt: skip


@pytest.fixture
def settings() -> Iterator[Settings]:
    """A state folder that nobody but root can reach, as in /root, with another installation's files in it."""
    with tempfile.TemporaryDirectory(prefix="fhu") as above:
        settings = settings_of(Path(above) / "state")
        for folder in ("", "log", "run", "run/pulse", "run/lock", "run/farewell"):
            (settings.state / folder).mkdir(mode=0o700)
        for name in ("fleet.db", "operator.token", "agent.token", "run/cookie.key", "run/pulse/hub", "run/wanted.json",
                     "log/hub.log", "run/lock/up"):  # fmt: skip
            (settings.state / name).write_text("secret")
            (settings.state / name).chmod(0o600)
        (settings.state / "fleethub.toml").write_text('[alarms]\nurls = ["json://user:password@host"]\n')
        canary_file.write(settings.canary, CanaryFile("a" * 64, "b" * 64))
        with socket.socket(socket.AF_UNIX) as supervisor:
            supervisor.bind(os.fspath(settings.supervisor_socket))
            settings.supervisor_socket.chmod(0o600)
            supervisor.listen()
            yield settings_of(settings.state)


def settings_of(state: Path) -> Settings:
    return load({"FLEETHUB_STATE": str(state), "FLEETHUB_DRILLS_ENABLED": "true"})


def child(settings: Settings) -> Any:
    """What the lesser user says of all that it tried."""
    environment = {**os.environ, "FLEETHUB_STATE": str(settings.state), "FLEETHUB_DRILLS_ENABLED": "true"}
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPT + CHILD],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_own_user_gets_at_what_it_was_lent_and_at_nothing_else(settings: Settings) -> None:
    """The queues were there before it for the first time; for the second they and the canary come after it."""
    asyncio.run(own_users_life(settings))
    assert [each for each in private_files.faults(settings) if "fleethub.toml" not in str(each)] == []


async def own_users_life(settings: Settings) -> None:
    """Two gateways, one after the other, each beside a server of the queues."""
    server = Server(settings.queues_socket, LOG)
    server.start()
    deaf_file.ask(settings, "gateway")
    settings.deaf.chmod(0o666)
    told = await asyncio.to_thread(child, settings)
    number = told["number"]
    check(settings, told)
    await hub_goes_on(settings)
    assert number in ownership.LESSER
    assert stat.S_IMODE(settings.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(settings.run.stat().st_mode) == 0o710
    server.close()

    server = Server(settings.queues_socket, LOG)  # its folder stays open to the user, and its new socket is
    server.start()
    canary_file.write(settings.canary, CanaryFile("a" * 64, "b" * 64))
    deaf_file.ask(settings, "gateway")
    for path, mode in ((settings.queues_socket, 0o660), (settings.run / "queues.key", 0o640), (settings.canary, 0o640)):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid, path.stat().st_gid) == (mode, 0, number)
    check(settings, await asyncio.to_thread(child, settings))
    server.close()


async def hub_goes_on(settings: Settings) -> None:
    """It is not told that it was replaced by a hub of the epoch that a gateway has named."""
    link = QueueLink(settings.queues_socket, "hub", timeout_s=WAIT_S)
    link.epoch = 1
    await link.append("deliveries/gateway", [b"x"])
    await link.close()


def check(settings: Settings, told: dict[str, Any]) -> None:
    """It did its work, and no more."""
    assert told.pop("alarms") == []
    pid, number, canary = told.pop("pid"), told.pop("number"), told.pop("canary")
    assert {name for name, result in told.items() if result == "done"} == {"say", "hear"}
    assert set(told.values()) == {"done", "PermissionError", "not_yours"}
    assert canary in ("a" * 64, "b" * 64)
    assert contested.lately(settings.run) == ["web1"]
    assert sightings.lately(settings.run, sightings.IMPERSONATED) == [("web1", "it is told")]
    assert (settings.run / "farewell" / "gateway").read_text() == str(pid)
    assert (settings.run / "gave_up" / "gateway").read_text() == f"{pid} a reason\n"
    assert (settings.log / "gateway.log").read_text().count("a line") == 1
    (settings.log / "gateway.log").unlink()
    pulse = pulse_file.read(settings.pulses, "gateway")
    assert pulse is not None
    assert (pulse.pid, pulse.turn) == (pid, 3)
    assert (settings.run / "contested").stat().st_uid == number


def test_fanouts_own_user_reads_what_it_shows_keeps_sessions_and_gets_at_nothing_else(settings: Settings) -> None:
    """In a folder of a version before, whose processes were all root; and it becomes root's again."""
    settings.state.parent.chmod(0o711)
    settings.database.unlink()
    (settings.run / "cookie.key").unlink()
    (settings.run / "cookie.key").write_bytes(b"k" * 32)
    (settings.run / "cookie.key").chmod(0o600)
    PulseFile(settings.pulses, "hub").beat()
    for name, content in (
        ("history/fanout", "earlier"), ("incidents/1/log.txt", "a line"), ("run/signed_out/before", ""),
        ("run/sessions/before", '{"actor": "ann", "role": "viewer", "at": 1.0}'), ("agent-state/journal.db", "secret"),
        ("replaced/fleet-1", "secret"), ("run/stacks/hub.stacks", "secret"), ("run/gave_up/hub", "1 why"),
    ):  # fmt: skip
        (settings.state / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (settings.state / name).write_text(content)
        (settings.state / name).chmod(0o600)
    signin_codes.put(settings.run, "code", Role.ADMIN, 9e9)
    asyncio.run(fanouts_life(settings))
    assert [each for each in private_files.faults(settings) if "fleethub.toml" not in str(each)] == []
    own_user.take_back(settings, "fanout")
    for name in FANOUT_OWNS:
        assert ((settings.state / name).stat().st_uid, (settings.state / name).exists()) == (0, True)


async def fanouts_life(settings: Settings) -> None:
    server = Server(settings.queues_socket, LOG)
    server.start()
    sqlite = fleet_db.open_for_writing(settings.database)
    sqlite.execute("INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES ('1', 'viewer', 'ann', 0)")
    environment = {**os.environ, "FLEETHUB_STATE": str(settings.state)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ATTEMPT + FANOUT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    guessed = settings.run / "guessed" / "fanout"
    await asyncio.to_thread(until, lambda: guessed.exists() or child.returncode is not None)
    sqlite.close()
    out, _ = await asyncio.wait_for(child.communicate(b"closed\n"), WAIT_S)
    server.close()
    told = json.loads(out)
    done = told.pop("done")
    allowed = {f"read {name}" for name in FANOUT_READS | FANOUT_OWNS}
    allowed |= {f"{what} run/codes/{digest('code')}" for what in ("read", "write", "remove")}
    allowed |= {f"write {name}" for name in FANOUT_OWNS}
    allowed |= {f"remove {name}" for name in FANOUT_OWNS if name.endswith(("/fanout", "/before"))}
    assert {name for name, result in done.items() if result == "done"} == allowed | {"ask", "hear"}
    assert set(done.values()) == {"done", "PermissionError", "not_yours"}
    assert told == {
        "tokens": ["ann"], "key": 32, "own": "secret", "ended": ["before"], "listed": ["before"],
        "put": ["before", "s" * 8], "over": ["before", "s" * 8], "code": ["admin", None], "history": "earlier",
        "pulse": 1, "alarms": [], "log": False, "tokens without a log": ["ann"],
    }  # fmt: skip
    assert sightings.lately(settings.run, sightings.GUESSED) == [("fanout", "a hundred")]
    number = own_user.of(settings.state, "fanout")
    signin_codes.put(settings.run, "later", Role.ADMIN, 9e9)  # by root, in a folder that is not root's
    (made,) = (settings.run / "codes").iterdir()
    assert (made.stat().st_uid, made.stat().st_gid, stat.S_IMODE(made.stat().st_mode)) == (0, number, 0o640)
    made.unlink()


def test_what_a_lesser_user_left_is_never_made_another_users_nor_followed(tmp_path: Path) -> None:
    """Links to root's own file, one of them hard, a pipe, a folder, names that are none."""
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    other = tmp_path / "other"
    other.write_text("root's too")
    folder = tmp_path / "impersonated"
    own_user.lend(folder, ownership.LESSER[0])
    durable.replace(folder / "web1", b"it is told", durable=False)

    def plant() -> None:
        (folder / "soft").symlink_to(other)
        (folder / "hard").hardlink_to(secret)
        os.mkfifo(folder / "pipe")
        (folder / "folder").mkdir()
        (folder / "a\x1b[2Jb").touch()

    plant()
    assert sightings.lately(tmp_path, "impersonated") == [("web1", "it is told")]
    assert not (folder / "a\x1b[2Jb").exists()
    for user in (ownership.LESSER[1], 0, ownership.LESSER[2]):  # for the last two, root's own files are no strangers'
        own_user.lend(folder, user)
        assert folder.stat().st_uid == user
        handed = {"a\x1b[2Jb"} if user != ownership.LESSER[1] else set()
        assert {path.name for path in folder.iterdir()} == {"folder"} | handed
        (folder / "folder").rmdir()
        assert (secret.stat().st_uid, secret.read_text()) == (0, "root's")
        assert other.stat().st_uid == 0
        plant()


def test_what_was_handed_over_before_somebody_died_at_it_is_kept_by_the_next(tmp_path: Path) -> None:
    """The bug it would catch: sessions that were signed out are good again, for the list of them was thrown away."""
    folder, user = tmp_path / "signed_out", ownership.LESSER[3]
    folder.mkdir(mode=0o700)
    for number in range(10):
        (folder / f"{number}").write_text("over")
        os.chown(folder / f"{number}", user if number % 2 else 0, -1)
    own_user.lend(folder, user)
    assert {(path.name, path.stat().st_uid) for path in folder.iterdir()} == {(f"{n}", user) for n in range(10)}


def test_nothing_is_taken_back_while_another_process_has_it(settings: Settings) -> None:
    own_user.prepare(settings, "fanout")
    number, folder = own_user.of(settings.state, "fanout"), settings.state / "history"
    with subprocess.Popen(["sleep", "600"], user=number) as sibling:
        own_user.take_back(settings, "fanout")
        assert folder.stat().st_uid == number
        sibling.kill()
    own_user.take_back(settings, "fanout")
    assert folder.stat().st_uid == 0


def test_two_that_lend_at_once_go_one_after_the_other_and_nobody_waits_for_ever(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_user, "ALONE_S_MAX", 0.05)
    with own_user._alone(settings.run), pytest.raises(BlockingIOError):
        own_user.prepare(settings, "fanout")
    own_user.prepare(settings, "fanout")


def test_a_state_folder_behind_a_link_in_a_closed_folder_is_a_hindrance(settings: Settings, tmp_path: Path) -> None:
    settings.state.parent.chmod(0o711)
    closed = Path(tempfile.mkdtemp(prefix="fhu"))  # 0700
    (closed / "hub").symlink_to(settings.state)
    try:
        found = own_user.hindrances(settings_of(closed / "hub"), "fanout")
        assert f"a user who is not root cannot pass {closed} to the databases" in found
    finally:
        shutil.rmtree(closed)


def test_a_folder_full_of_names_costs_one_look_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contested, "LOOKED_AT_MAX", 20)
    (tmp_path / "contested").mkdir()
    for number in range(100):
        (tmp_path / "contested" / f"web{number}").touch()
    assert len(contested.lately_changed(tmp_path / "contested", 300.0)) == 20
    for _ in range(5):  # what is old goes, so that what is new is seen in the end
        assert contested.lately_changed(tmp_path / "contested", -1.0) == []
    assert list((tmp_path / "contested").iterdir()) == []


def test_each_state_folder_has_a_number_that_nobody_else_has(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {own_user.of(Path(f"/var/lib/fleethub{number}"), "gateway") for number in range(50)}
    assert len(numbers) > 30
    assert own_user.of(Path("/x"), "gateway") == own_user.of(Path("/x"), "gateway")
    taken = own_user.of(Path("/x"), "gateway")
    monkeypatch.setattr(own_user, "_is_named", lambda number: number == taken)
    assert own_user.of(Path("/x"), "gateway") in ownership.LESSER
    assert own_user.of(Path("/x"), "gateway") != taken
    monkeypatch.setattr(own_user, "_is_named", lambda number: True)
    with pytest.raises(ResourceError, match="belong to somebody"):
        own_user.of(Path("/x"), "gateway")


@pytest.mark.parametrize(
    ("owner", "group", "mode", "lent"),
    [
        (0, ownership.LESSER[0], 0o710, True),
        (0, ownership.LESSER[0], 0o700, False),
        (0, ownership.LESSER[0], 0o711, True),
        (0, ownership.LESSER[0], 0o750, False),
        (0, 100, 0o710, False),
        (65534, ownership.LESSER[0], 0o710, False),
    ],
)
def test_folder_counts_as_lent_if_root_lent_it_and_else_is_closed(
    tmp_path: Path, owner: int, group: int, mode: int, lent: bool
) -> None:
    os.chown(tmp_path, owner, group)
    tmp_path.chmod(mode)
    assert ownership.group_let_into(tmp_path) == (group if lent else None)
    own_user.close(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == (0o710 if lent else 0o700)
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 0, 0)


def test_log_that_is_held_is_rotated_without_a_new_file(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import sys; from pathlib import Path; from processes.adapters import logs, own_user\n"
        "logs.FILE_BYTES_MAX = 2000\n"
        "log = logs.open_log(Path(sys.argv[1]), 'gateway', held=True)\n"
        "own_user.become(60706)\n"
        "for number in range(120): log.info('line', number=number)\n"
        "logs.close()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(settings.log)], check=True, timeout=60)
    kept = [path.read_text() for path in sorted(settings.log.glob("gateway.log*"))]
    assert len(kept) == 4
    assert all(0 < len(each) <= 2000 for each in kept)
    lines = [line for each in reversed(kept) for line in each.splitlines()]
    assert [line.rpartition("number=")[2] for line in lines] == [str(each) for each in range(120 - len(lines), 120)]


def test_process_ends_with_its_parent_after_it_has_become_another_user() -> None:
    """The kernel forgets that wish when the user changes."""
    script = (
        "import os, sys, signal, time\n"
        "from processes.adapters import bootstrap, own_user\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.close(r)\n"
        "    own_user.become(60706); bootstrap.die_with_parent()\n"
        "    os.write(w, b'x'); time.sleep(600)\n"
        "os.close(w); os.read(r, 1); print('ready', flush=True); signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.read() == b""  # the child, which has the other end of it, is gone too
