"""A real agent against a hub's wire: what it runs, streams, reports, and what survives its death."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_process import AgentProcess, agent_process, until
from doubles.hub_wire import TOKEN, HubWire

from processes.adapters import clock
from processes.adapters.state import pulse_file
from processes.agent.config import load
from processes.agent.folder import READ_BYTES_MAX
from processes.agent.journal import Journal
from processes.agent.runner import Runner
from processes.core.agent.flow import RECORD_BYTES, WINDOW_BYTES_MAX
from processes.core.agent.remembered import JournalRow, JournalState

Claim = Callable[[HubWire, AgentProcess], Coroutine[Any, Any, None]]


def play(home: Path, commands: dict[str, Any], claim: Claim, *, prepare: Claim | None = None) -> None:
    """Runs `claim` with a hub and an agent that is registered; `prepare` before the agent starts."""

    async def scene() -> None:
        async with HubWire() as hub:
            if prepare is not None:
                await prepare(hub, AgentProcess(home, hub.url, TOKEN, commands))
            async with agent_process(home, hub.url, TOKEN, commands) as agent:
                await hub.registered()
                await claim(hub, agent)

    asyncio.run(scene())


def counting(home: Path, rest: str = "") -> list[str]:
    """An argv that leaves a line in a file each time it is really run."""
    return ["/bin/sh", "-c", f"echo run >> {home}/runs.txt; {rest or 'true'}"]


def runs(home: Path) -> int:
    path = home / "runs.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def waiting(home: Path, name: str = "go") -> str:
    """A piece of shell that goes on once the test has made the file."""
    return f"while [ ! -e {home}/{name} ]; do sleep 0.02; done"


def test_command_is_acknowledged_run_streamed_reported_and_cleared_away(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("greet", "c1")
        report = await hub.report("c1")
        assert (report["status"], report["exit_code"], report["command"]) == ("error", 3, "greet")
        assert hub.lines("c1") == ["hello c1 greet web1", "bye", "no newline"]
        assert hub.output["c1"][1][0] == "stderr"
        kinds = [frame["type"] for frame in hub.frames if frame["payload"].get("command_id") == "c1"]
        assert kinds == ["command_ack", "output", "output", "output", "status"]
        await until(lambda: not agent.run_folder("c1").exists(), "the run folder's end")

    script = 'echo hello $FLEETHUB_COMMAND_ID $FLEETHUB_OP $FLEETHUB_HOST; sleep 0.1; echo bye >&2; sleep 0.1; printf "no newline"; exit 3'
    play(tmp_path, {"greet": ["sh", "-c", script]}, claim)


def test_command_gets_a_clean_environment_and_no_agent_secret(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("env", "c1")
        await hub.report("c1")
        names = {line.partition("=")[0] for line in hub.lines("c1")}
        told = {"FLEETHUB_COMMAND_ID", "FLEETHUB_OP", "FLEETHUB_HOST", "FLEETHUB_RUN"}
        assert names == {"PATH", "HOME", "LANG", "USER"} | told

    play(tmp_path, {"env": ["env"]}, claim)


def test_command_is_alone_in_its_session_with_default_signals_and_no_stdin(tmp_path: Path) -> None:
    code = (
        "import os,signal,sys;print(os.getsid(0)==os.getpid(), sys.stdin.read()=='', signal.pthread_sigmask(0,[]),"
        "signal.getsignal(signal.SIGTERM)==signal.SIG_DFL, sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))"
    )

    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("look", "c1")
        await hub.report("c1")
        assert hub.lines("c1") == ["True True set() True ['0', '1', '2'] 4"]  # the fourth is the listing's own

    play(tmp_path, {"look": ["python3", "-I", "-S", "-c", code]}, claim)


def test_argv_never_meets_a_shell(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("say", "c1")
        await hub.report("c1")
        assert hub.lines("c1") == [f"$(touch {tmp_path}/pwned); `id` && echo *"]
        assert not (tmp_path / "pwned").exists()

    play(tmp_path, {"say": ["printf", "%s\n", f"$(touch {tmp_path}/pwned); `id` && echo *"]}, claim)


def test_program_that_does_not_exist_is_an_error_with_its_name(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("none", "c1")
        report = await hub.report("c1")
        assert (report["status"], report["exit_code"]) == ("error", 127)
        assert "no-such-program" in report["message"]

    play(tmp_path, {"none": ["no-such-program"]}, claim)


def test_what_may_not_run_is_rejected_with_its_reason(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("rm", "c1")
        assert (await hub.first("command_rejected", "c1"))["reason"] == "not_offered"
        await hub.command("slow", "c2", ttl_s=0.0)
        assert (await hub.first("command_rejected", "c2"))["reason"] == "expired"
        await hub.command("slow", "c3")
        await hub.command("slow", "c4")
        rejected = await hub.first("command_rejected", "c4")
        assert (rejected["reason"], rejected["current_command"]) == ("busy", "slow")
        await hub.command("beside", "c5")
        assert (await hub.report("c5"))["status"] == "ok"
        await hub.command("slow", "../../etc/passwd\n")
        assert (await hub.first("command_rejected", "../../etc/passwd\n"))["reason"] == "malformed_id"
        (tmp_path / "go").touch()
        assert (await hub.report("c3"))["status"] == "ok"
        assert runs(tmp_path) == 2

    slow = counting(tmp_path, waiting(tmp_path))
    play(tmp_path, {"slow": slow, "beside": {"argv": counting(tmp_path), "concurrent": True}}, claim)


def test_duplicates_before_during_and_after_never_run_twice(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        for _ in range(3):
            await hub.command("count", "c1")
        await hub.until(lambda: hub.of("output", "c1"), "its output")
        await hub.command("count", "c1", attempt=2)
        await hub.until(lambda: len(hub.of("command_ack", "c1")) >= 2, "the duplicate's ack")
        (tmp_path / "go").touch()
        await hub.report("c1")
        await until(lambda: not agent.run_folder("c1").exists(), "the run folder's end")
        before = len(hub.reports["c1"])
        await hub.command("count", "c1", attempt=3)
        await hub.until(lambda: len(hub.reports["c1"]) > before, "the report again")
        assert hub.reports["c1"][-1]["status"] == "ok"
        states = [ack["state"] for ack in hub.of("command_ack", "c1")]
        assert states[0] == "accepted"
        assert set(states[1:]) == {"duplicate"}
        assert runs(tmp_path) == 1

    play(tmp_path, {"count": counting(tmp_path, "echo begun; " + waiting(tmp_path))}, claim)


def test_rejected_id_stays_rejected_when_it_comes_again(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("count", "c1", ttl_s=0)
        await hub.first("command_rejected", "c1")
        await agent.kill()
        agent.start()
        await hub.registered(2)
        await hub.command("count", "c1", ttl_s=60)
        await hub.until(lambda: len(hub.of("command_rejected", "c1")) == 2, "the same rejection")
        assert hub.of("command_ack", "c1") == []
        assert runs(tmp_path) == 0

    play(tmp_path, {"count": counting(tmp_path)}, claim)


def test_agent_killed_in_mid_command_comes_back_streams_on_and_reports_once_run(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("count", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its first line")
        await agent.kill(signal.SIGKILL)
        (tmp_path / "two").touch()
        spool = agent.run_folder("c1") / "spool"
        await until(lambda: b"unseen" in spool.read_bytes(), "output while no agent lives")
        agent.start()
        again = await hub.registered(2)
        assert again["known"] == [{"command_id": "c1", "state": "started"}], "it has looked before it speaks"
        await hub.until(lambda: 1 in hub.output["c1"], "what was spooled meanwhile")
        assert "c1" not in hub.reports
        (tmp_path / "three").touch()
        assert (await hub.report("c1"))["status"] == "ok"
        assert hub.lines("c1") == ["seen", "unseen", "last"]
        assert runs(tmp_path) == 1

    script = f"echo seen; {waiting(tmp_path, 'two')}; echo unseen; {waiting(tmp_path, 'three')}; echo last"
    play(tmp_path, {"count": counting(tmp_path, script)}, claim)


def test_kill_of_the_agents_whole_process_group_spares_the_command(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("count", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        await agent.kill(signal.SIGKILL, group=True)
        (tmp_path / "go").touch()
        await until((agent.run_folder("c1") / "exit").exists, "its exit")
        agent.start()
        assert (await hub.report("c1"))["status"] == "ok"

    play(tmp_path, {"count": counting(tmp_path, "echo begun; " + waiting(tmp_path))}, claim)


def test_agent_killed_after_exit_and_before_report_reports_when_it_is_back(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("count", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        await agent.kill(signal.SIGKILL)
        (tmp_path / "go").touch()
        await until((agent.run_folder("c1") / "exit").exists, "its exit")
        agent.start()
        report = await hub.report("c1")
        assert (report["status"], report["exit_code"]) == ("error", 5)
        assert runs(tmp_path) == 1

    play(tmp_path, {"count": counting(tmp_path, f"echo begun; {waiting(tmp_path)}; exit 5")}, claim)


def journalled(state: JournalState = JournalState.ADMITTED, **more: Any) -> JournalRow:
    now = clock.now()
    return JournalRow("c1", "count", state, more.pop("boot_id", clock.boot_id()), now.boot_s, now.wall_s, **more)


async def write_journal(agent: AgentProcess, row: JournalRow) -> Journal:
    journal = Journal(agent.state / "journal.db")
    await journal.open()
    await journal.record(row)
    return journal


def test_command_journalled_and_not_started_is_run_by_the_next_agent(tmp_path: Path) -> None:
    async def prepare(_: HubWire, agent: AgentProcess) -> None:
        (await write_journal(agent, journalled())).close()

    async def claim(hub: HubWire, _: AgentProcess) -> None:
        assert (await hub.registered())["known"] == [{"command_id": "c1", "state": "accepted"}]
        assert (await hub.report("c1"))["status"] == "ok"
        assert runs(tmp_path) == 1

    play(tmp_path, {"count": counting(tmp_path)}, claim, prepare=prepare)


def test_command_journalled_whose_time_is_over_is_reported_and_not_run(tmp_path: Path) -> None:
    async def prepare(_: HubWire, agent: AgentProcess) -> None:
        (await write_journal(agent, journalled(ttl_s=0.001))).close()

    async def claim(hub: HubWire, _: AgentProcess) -> None:
        report = await hub.report("c1")
        assert report["status"] == "error"
        assert "not run" in report["message"]
        assert runs(tmp_path) == 0

    play(tmp_path, {"count": counting(tmp_path)}, claim, prepare=prepare)


@pytest.mark.parametrize(
    ("boot", "words"), [("this", "the shim died, outcome unknown"), ("another", "rebooted during the command")]
)
def test_command_started_whose_shim_is_gone_is_never_run_again(tmp_path: Path, boot: str, words: str) -> None:
    async def prepare(_: HubWire, agent: AgentProcess) -> None:
        (await write_journal(agent, journalled(JournalState.LAUNCHED))).close()
        place = agent.run_folder("c1")
        place.mkdir(parents=True)
        boot_id = clock.boot_id() if boot == "this" else "another-boot"
        (place / "started").write_text(f"pid=4194303\nstart_ticks=1\nboot_id={boot_id}\n")

    async def claim(hub: HubWire, _: AgentProcess) -> None:
        report = await hub.report("c1")
        assert report["status"] == "error"
        assert words in report["message"]
        assert runs(tmp_path) == 0

    play(tmp_path, {"count": counting(tmp_path)}, claim, prepare=prepare)


def test_shim_killed_with_a_living_agent_ends_as_unknown(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("count", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        lock = dict(line.split("=") for line in (agent.run_folder("c1") / "lock").read_text().split())
        started = dict(line.split("=") for line in (agent.run_folder("c1") / "started").read_text().split())
        os.kill(int(lock["pid"]), signal.SIGKILL)
        assert "the shim died" in (await hub.report("c1"))["message"]
        os.killpg(int(started["pid"]), signal.SIGKILL)
        assert runs(tmp_path) == 1

    play(tmp_path, {"count": counting(tmp_path, "echo begun; " + waiting(tmp_path))}, claim)


def test_two_shims_for_one_command_run_it_once(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        runner, exits = Runner(load(agent.config), clock.boot_id()), []
        runner.on_exit = lambda: exits.append(1)
        await runner.prepare("x1")
        await asyncio.gather(*(runner.launch("x1", "count") for _ in range(4)))
        await until((agent.run_folder("x1") / "exit").exists, "its exit")
        await until(lambda: len(exits) == 4, "the word that each shim has ended")
        assert not runner._exits
        runner.close()
        for popen in [*runner._leaving, *runner._shims.values()]:
            await asyncio.to_thread(popen.wait, 10)
        assert runs(tmp_path) == 1

    play(tmp_path, {"count": counting(tmp_path)}, claim)


def test_hub_away_for_the_whole_run_gets_output_and_report_afterwards(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("count", "c1")
        await hub.first("command_ack", "c1")
        await hub.go()
        (tmp_path / "go").touch()
        await until((agent.run_folder("c1") / "exit").exists, "its exit")
        await hub.come()
        assert (await hub.registered(2))["known"][0]["command_id"] == "c1"
        assert (await hub.report("c1"))["status"] == "ok"
        assert hub.lines("c1") == ["one", "two"]

    play(tmp_path, {"count": counting(tmp_path, waiting(tmp_path) + "; echo one; echo two")}, claim)


def test_report_is_sent_again_on_a_live_connection_until_acknowledged(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        hub.acknowledges_reports = False
        await hub.command("count", "c1")
        await hub.until(lambda: len(hub.reports.get("c1", [])) == 2, "the report again")
        assert hub.connections == 1
        assert agent.run_folder("c1").exists()
        await hub.send("ack", command_id="c1")
        await until(lambda: not agent.run_folder("c1").exists(), "the run folder's end")
        assert hub.reports["c1"][0] == hub.reports["c1"][1]

    play(tmp_path, {"count": counting(tmp_path)}, claim)


def test_cancel_ends_the_whole_group_and_says_cancelled(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("slow", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        await hub.send("kill_command", signal="SIGTERM", pid=0, command_id="c1")
        report = await hub.report("c1")
        assert (report["status"], report["exit_code"]) == ("cancelled", 143)
        child = int(hub.lines("c1")[0])
        await until(lambda: pulse_file.start_ticks(child) is None, "the child's end")

    play(tmp_path, {"slow": ["/bin/sh", "-c", "trap '' TERM; sleep 1000 & echo $!; trap - TERM; wait"]}, claim)


def test_cancel_of_a_program_that_completes_loses(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("deaf", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        await hub.send("kill_command", signal="SIGTERM", pid=0, command_id="c1")
        assert (await hub.report("c1"))["status"] == "ok"
        assert "got" in hub.lines("c1")

    play(
        tmp_path,
        {"deaf": ["/bin/sh", "-c", "trap 'echo got; exit 0' TERM; echo ready; while :; do sleep 0.02; done"]},
        claim,
    )


def test_cancel_of_an_unknown_id_answers_the_later_delivery_cancelled_and_does_not_run_it(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.send("kill_command", signal="SIGTERM", pid=0, command_id="c1")
        assert (await hub.report("c1"))["status"] == "cancelled"
        await agent.kill()
        agent.start()
        await hub.registered(2)
        await hub.command("count", "c1")
        await hub.first("command_ack", "c1")
        await hub.until(lambda: len(hub.reports["c1"]) >= 2, "the report again")
        assert {report["status"] for report in hub.reports["c1"]} == {"cancelled"}
        assert runs(tmp_path) == 0

    play(tmp_path, {"count": counting(tmp_path)}, claim)


def test_time_limit_ends_a_command_as_timed_out(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("slow", "c1")
        report = await hub.report("c1")
        assert (report["status"], report["exit_code"]) == ("timed_out", 143)

    play(tmp_path, {"slow": {"argv": ["sleep", "1000"], "timeout_s": 0.2}}, claim)


def test_child_left_behind_with_the_output_open_does_not_hold_the_report(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("daemon", "c1")
        assert (await hub.report("c1"))["status"] == "ok"
        os.kill(int(hub.lines("c1")[0]), signal.SIGKILL)

    play(tmp_path, {"daemon": ["/bin/sh", "-c", "sleep 1000 & echo $!"]}, claim)


def test_sigterm_ends_the_agent_with_1001_and_leaves_the_command_running(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        await hub.command("count", "c1")
        await hub.until(lambda: hub.output.get("c1"), "its output")
        assert await agent.kill(signal.SIGTERM) == 0
        await hub.until(lambda: hub.close_codes, "the close")
        assert hub.close_codes == [1001]
        (tmp_path / "go").touch()
        await until((agent.run_folder("c1") / "exit").exists, "its exit")
        agent.start()
        assert (await hub.report("c1"))["status"] == "ok"
        assert runs(tmp_path) == 1

    play(tmp_path, {"count": counting(tmp_path, "echo begun; " + waiting(tmp_path))}, claim)


def test_output_beyond_its_limit_is_marked_counted_and_not_kept(tmp_path: Path) -> None:
    async def prepare(hub: HubWire, agent: AgentProcess) -> None:
        agent.write(hub.url, {"much": ["/bin/sh", "-c", "yes 0123456789 | head -n 100000"]}, output_mb=0.1)

    async def scene() -> None:
        async with HubWire() as hub:
            agent = AgentProcess(tmp_path, hub.url, TOKEN)
            await prepare(hub, agent)
            agent.start()
            try:
                await hub.registered()
                await hub.command("much", "c1")
                report = await hub.report("c1")
                lines = hub.lines("c1")
                assert report["status"] == "ok"
                assert "discarded" in lines[-1]
                kept = len(lines) - 1
                assert report["message"] == f"{(100_000 - kept) * 11} bytes of output were discarded"
                assert 6000 < kept < 0.1 * 1024 * 1024 / 11
            finally:
                agent.end_all()

    asyncio.run(scene())


def test_long_lines_come_in_pieces_and_bytes_that_are_no_utf8_are_replaced(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        await hub.command("odd", "c1")
        await hub.report("c1")
        lines = hub.lines("c1")
        assert all(len(line.encode()) <= 8192 for line in lines)
        assert "".join(lines[:-1]) == "€" * 20_000
        assert lines[-1] == "a\ufffdb\x1b[31m"

    code = r"import sys;w=sys.stdout.buffer.write;w('€'.encode()*20000+b'\n');w(b'a\xffb\x1b[31m\n')"
    play(tmp_path, {"odd": ["python3", "-I", "-S", "-c", code]}, claim)


def test_hub_that_acknowledges_nothing_is_sent_a_bounded_window(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        hub.acknowledges_output = False
        await hub.command("much", "c1")
        await until((agent.run_folder("c1") / "exit").exists, "its exit")
        await hub.until(lambda: len(hub.of("heartbeat")) > 8, "some time")
        sent = sum(len(line) + RECORD_BYTES for _, line in hub.output["c1"].values())
        assert 200_000 < sent <= WINDOW_BYTES_MAX + READ_BYTES_MAX
        assert "c1" not in hub.reports
        hub.acknowledges_output = True
        await hub.send("ack", command_id="c1", offset=len(hub.output["c1"]))
        await hub.report("c1")
        assert len(hub.lines("c1")) == 20_000

    play(
        tmp_path,
        {"much": ["/bin/sh", "-c", "yes 0123456789012345678901234567890123456789012345678 | head -n 20000"]},
        claim,
    )


def turns(agent: AgentProcess) -> int:
    pulse = pulse_file.read(agent.state / "pulse", "agent")
    return 0 if pulse is None else pulse.turn


def test_heartbeats_begin_after_registered_and_name_the_running_command(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HubWire() as hub:
            hub.registers = False
            async with agent_process(tmp_path, hub.url, TOKEN, {"slow": ["/bin/sh", "-c", waiting(tmp_path)]}) as agent:
                await hub.registered()
                seen = turns(agent)
                await until(lambda: turns(agent) > seen + 5, "the loop's turns")
                assert hub.of("heartbeat") == []
                await hub.send("registered", host_id="h1", protocol=1, heartbeat_interval=0.3)
                first = await hub.first("heartbeat")
                assert first["pending_command"] is None if "pending_command" in first else True
                await hub.until(lambda: [beat for beat in hub.of("heartbeat") if beat.get("metrics")], "metrics")
                metrics = [beat for beat in hub.of("heartbeat") if beat.get("metrics")][-1]["metrics"]
                assert {"cpu", "ram", "load", "disk", "uptime_s"} <= set(metrics)
                await hub.command("slow", "c1")
                await hub.until(lambda: hub.of("heartbeat")[-1].get("command_pid"), "the command in a heartbeat")
                assert hub.of("heartbeat")[-1]["pending_command"] == "slow"
                (tmp_path / "go").touch()
                await hub.report("c1")

    asyncio.run(scene())


def test_refused_token_is_tried_again_in_60_s_and_said_in_the_log(tmp_path: Path) -> None:
    async def scene() -> None:
        async with HubWire(token="another") as hub, agent_process(tmp_path, hub.url, TOKEN) as agent:
            await until(lambda: "status=401" in agent.logged(), "the refusal")
            assert "retry_s=60.0" in agent.logged()
            assert TOKEN not in agent.logged()

    asyncio.run(scene())


def test_connection_that_breaks_or_is_restarted_is_replaced(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        hub.drop_live()
        await hub.registered(2)
        await hub.close_live(1012, "upgrade")
        await hub.registered(3)

    play(tmp_path, {}, claim)


def test_malformed_frames_of_the_hub_are_logged_and_survived(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        assert hub.live is not None
        for text in (
            "not json",
            "[]",
            '{"type": "command", "payload": {"command": 7}}',
            '{"type": "news", "payload": {}}',
        ):
            await hub.live.send(text)
        await hub.live.send(b"\xff\x00")
        await hub.command("count", "c1")
        await hub.report("c1")
        assert hub.connections == 1
        assert agent.logged().count("malformed frame") == 4

    play(tmp_path, {"count": counting(tmp_path)}, claim)


def test_agent_without_commands_offers_uptime_and_facts(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        assert sorted((await hub.registered())["commands"]) == ["facts", "uptime"]
        await hub.command("uptime", "c1")
        await hub.command("facts", "c2")
        await hub.report("c1")
        await hub.report("c2")
        assert "load average:" in "\n".join(hub.lines("c1"))
        assert any(line.startswith("kernel: ") for line in hub.lines("c2"))

    play(tmp_path, {}, claim)


def test_second_agent_on_the_same_state_is_refused(tmp_path: Path) -> None:
    async def claim(hub: HubWire, agent: AgentProcess) -> None:
        second = AgentProcess(tmp_path, hub.url, TOKEN)
        second.start()
        assert second.process is not None
        assert await asyncio.to_thread(second.process.wait, 20) == 70
        assert f"held by process {agent.process.pid if agent.process else 0}" in agent.logged()
        assert hub.connections == 1

    play(tmp_path, {}, claim)


def test_pulse_of_a_lone_agent_stands_in_its_own_state(tmp_path: Path) -> None:
    async def claim(_: HubWire, agent: AgentProcess) -> None:
        await until(
            lambda: (p := pulse_file.read(agent.state / "pulse", "agent")) and p.turn > 3 and p.online == 1,
            "an online pulse",
        )
        pulse = pulse_file.read(agent.state / "pulse", "agent")
        assert pulse is not None
        assert agent.process is not None
        assert pulse.pid == agent.process.pid

    play(tmp_path, {}, claim)


def test_register_says_who_and_what(tmp_path: Path) -> None:
    async def claim(hub: HubWire, _: AgentProcess) -> None:
        said = await hub.registered()
        assert said["hostname"] == "web1"
        assert said["protocol"] == 1
        assert said["boot_id"] == clock.boot_id()
        assert len(said["journal_id"]) == 32
        assert said["command_options"] == {"a": {"timeout_s": 5.0, "concurrent": True}}
        assert json.loads(json.dumps(hub.headers[0]))["Authorization"] == f"Bearer {TOKEN}"

    play(tmp_path, {"a": {"argv": ["true"], "timeout_s": 5, "concurrent": True}}, claim)
