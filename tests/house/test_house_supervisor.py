"""supervisord.conf against the processes there are and the variables that `env` prints."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes.adapters.settings import KINDS, load
from processes.adapters.supervisor import HELD, contract_name, supervisor_name
from processes.cli.machine import environment

HOME = Path(__file__).resolve().parents[2]
CONF = HOME / "supervisord.conf"
# what supervisord itself makes of the file: every group's members with their commands, in start order
PARSE = """
import json, sys
from supervisor.options import ServerOptions
options = ServerOptions()
options.realize(["-c", sys.argv[1]])
print(json.dumps([
    [group.name, group.priority, config.name, config.command,
     config.autostart, config.autorestart is not False, config.stopwaitsecs]
    for group in options.process_group_configs for config in group.process_configs
]))
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="fh") as name:
        yield Path(name)


@pytest.fixture
def sections() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;",), strict=True)
    parser.read_string(CONF.read_text())
    return parser


def programs(sections: configparser.RawConfigParser) -> dict[str, configparser.SectionProxy]:
    return {
        name.split(":")[1]: sections[name]
        for name in sections.sections()
        if name.startswith(("program:", "fcgi-program:"))
    }


def test_the_programs_are_the_processes_in_start_order(sections: configparser.RawConfigParser) -> None:
    found = programs(sections)
    assert tuple(found) == KINDS
    rooms = {path.parent.name for path in (HOME / "processes").glob("*/__main__.py")}
    assert rooms - {"cli"} == set(found)
    priorities = [int(program["priority"]) for program in found.values()]
    assert priorities == sorted(set(priorities))


def test_every_program_runs_the_module_of_its_name(sections: configparser.RawConfigParser) -> None:
    for name, program in programs(sections).items():
        assert f"-P -m processes.{name}" in program["command"], name
        assert "%(ENV_FLEETHUB_PYTHON)s" in program["command"] or "$FLEETHUB_PYTHON" in program["command"], name


def test_nothing_is_left_to_supervisors_defaults(sections: configparser.RawConfigParser) -> None:
    for name, program in programs(sections).items():
        wanted = {
            "command",
            "priority",
            "autorestart",
            "startsecs",
            "startretries",
            "stopwaitsecs",
            "stopsignal",
            "redirect_stderr",
        }
        assert wanted <= set(program), name
        assert program["autorestart"] == "true", name


def test_env_prints_every_variable_that_is_expanded_and_no_section_sets_one(
    sections: configparser.RawConfigParser, tmp_path: Path
) -> None:
    expanded = set(re.findall(r"%\(ENV_([A-Z_]+)\)s", CONF.read_text())) | set(
        re.findall(r"\$\{?([A-Z_]+)", CONF.read_text())
    )
    printed = environment.variables(load({"FLEETHUB_STATE": str(tmp_path)}))
    assert expanded <= set(printed)
    assert set(printed) == expanded
    assert not any("environment" in sections[name] for name in sections.sections())


def test_there_is_no_way_in_but_the_socket_in_the_state_folder(sections: configparser.RawConfigParser) -> None:
    assert "inet_http_server" not in sections.sections()
    assert sections["unix_http_server"]["file"] == "%(ENV_FLEETHUB_STATE)s/run/supervisor.sock"
    assert sections["unix_http_server"]["chmod"] == "0600"
    outside = [
        key
        for name in sections.sections()
        for key, value in sections[name].items()
        if re.match(r"/(?!bin/sh)|~", value)
    ]
    assert outside == []


@pytest.mark.parametrize("folder", ["state", "a b ; # c"])
def test_supervisord_reads_the_file_with_what_env_prints(short: Path, folder: str) -> None:
    """Paths with spaces and comment characters come through whole, and each member has the name that we know it by."""
    settings = load({"FLEETHUB_STATE": str(short / folder), "FLEETHUB_GATEWAY_PROCESSES": "2"})
    environment.make_folders(settings)
    variables = {**os.environ, **environment.variables(settings)}
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(CONF)], env=variables, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    names = [contract_name(group, name, sum(other[0] == group for other in rows)) for group, _, name, *_ in rows]
    assert [name for name in names if name] == settings.all_names()
    for group, _, member, command, autostart, autorestart, stopwaitsecs in rows:
        words = shlex.split(command)
        assert autorestart
        assert stopwaitsecs == 6
        assert autostart is (group != "agent")
        if group in HELD:
            assert words[:2] == ["/bin/sh", "-c"]
            subprocess.run(["/bin/sh", "-n", "-c", words[2]], check=True, timeout=10)
        else:
            assert words[0] == sys.executable
            assert words[1:4] == ["-P", "-m", f"processes.{group}"]
        contract = contract_name(group, member, sum(other[0] == group for other in rows))
        assert contract is None or supervisor_name(contract) == f"{group}:{member}"
    assert shlex.split(rows[-1][3])[-1] == f"{settings.state}/agent.toml"


def test_the_socket_holder_ends_when_supervisord_is_gone() -> None:
    """An orphaned holder would keep the port for ever, and let clients wait for nobody."""
    command = programs_of_file()["gateway"]["command"]
    line = shlex.split(command)[2].replace("%(process_num)d", "0")
    read, write = os.pipe()
    holder = subprocess.Popen(
        ["/bin/sh", "-c", line], env={"FLEETHUB_PYTHON": sys.executable, "PATH": os.defpath}, stdout=write, stderr=write
    )
    os.close(write)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            holder.wait(0.5)  # while somebody reads its output it stays
        os.close(read)
        holder.wait(5)
    finally:
        holder.kill()
        holder.wait()


def programs_of_file() -> dict[str, configparser.SectionProxy]:
    parser = configparser.RawConfigParser(strict=True)
    parser.read_string(CONF.read_text())
    return programs(parser)


def test_the_configuration_is_ascii() -> None:
    """supervisord reads it in the locale's encoding; the bug it would catch: no start in ja_JP.EUC-JP, for a comment."""
    assert CONF.read_bytes().isascii()
