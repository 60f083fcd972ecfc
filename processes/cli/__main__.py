"""The command line, `fleethub VERB …`. Every way out of it is here: an exit code, and never a traceback."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from processes.adapters.machine.systemd_units import SystemdUnits
from processes.adapters.settings import SettingsError, load
from processes.cli.terminal import output, streams
from processes.cli.terminal.client_failure import failure_of
from processes.cli.terminal.failure import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, Failure
from processes.cli.terminal.options import Invocation, wants_json
from processes.cli.terminal.verb_group import Verbs
from processes.client.errors import ClientError
from processes.client.patience import PATIENCE, Patience
from processes.core.errors import EXIT_SETTINGS, FleethubError

LOCAL = {  # verbs that only ever concern this machine's installation
    "up", "down", "restart", "stop", "start", "doctor", "backup", "restore", "store", "env", "systemd-unit", "alarms",
    "drill",
}  # fmt: skip


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="fleethub", prog_name="fleethub", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """A hub for fleets of servers that cannot freeze unnoticed and loses no command.

    --hub, --token-file and --json may stand before the verb, too.
    """
    hub = os.environ.get("FLEETHUB_HUB")
    if hub and context.invoked_subcommand in LOCAL:
        output.note(
            f"fleethub: {context.invoked_subcommand} concerns this machine's own installation, not FLEETHUB_HUB ({hub})"
        )


VERBS = "processes.cli.verbs"
INSTALLATION = f"{VERBS}.installation"
cli.sections = {  # the name of each verb, and the module that has it
    "This installation": {
        "up": INSTALLATION, "down": INSTALLATION, "status": f"{VERBS}.status", "restart": INSTALLATION,
        "stop": INSTALLATION, "start": INSTALLATION, "doctor": f"{VERBS}.doctor", "backup": f"{VERBS}.backup",
        "restore": f"{VERBS}.restore", "store": f"{VERBS}.store", "env": INSTALLATION,
        "systemd-unit": f"{VERBS}.systemd_unit",
    },
    "Hosts": {
        "hosts": f"{VERBS}.fleet", "host": f"{VERBS}.fleet", "enroll": f"{VERBS}.fleet", "revoke": f"{VERBS}.fleet",
        "remove": f"{VERBS}.fleet", "lift": f"{VERBS}.fleet", "agent": f"{VERBS}.agent",
        "inventory": f"{VERBS}.inventory", "label": f"{VERBS}.label", "queries": f"{VERBS}.label",
    },
    "Commands": {
        "run": f"{VERBS}.run", "runs": f"{VERBS}.runs", "commands": f"{VERBS}.commands",
        "command": f"{VERBS}.commands", "logs": f"{VERBS}.commands", "cancel": f"{VERBS}.commands",
        "wait": f"{VERBS}.wait",
    },
    "What went wrong": {
        "incidents": f"{VERBS}.incidents", "incident": f"{VERBS}.incidents",
        "conditions": f"{VERBS}.host_conditions", "acknowledge": f"{VERBS}.host_conditions",
        "silence": f"{VERBS}.host_conditions",
        "silences": f"{VERBS}.host_conditions", "unsilence": f"{VERBS}.host_conditions", "rules": f"{VERBS}.host_rules",
        "deadletters": f"{VERBS}.dead_letters", "deadletter": f"{VERBS}.dead_letters", "alarms": f"{VERBS}.alarms",
        "drill": f"{VERBS}.drill",
    },
    "Who may, and who did": {
        "token": f"{VERBS}.tokens", "sessions": f"{VERBS}.sessions", "audit": f"{VERBS}.audit",
    },
    "This command line": {"completion": f"{VERBS}.manual", "man": f"{VERBS}.manual"},
}  # fmt: skip


def main() -> None:
    """Run the verb that this process was started with, and exit."""
    try:
        streams.prepare()
    except streams.Unwritable as failure:
        sys.exit(output.fail(failure, as_json=False))
    sys.exit(execute(sys.argv[1:]))


def execute(
    arguments: Sequence[str],
    patience: Patience = PATIENCE,
    units: SystemdUnits = SystemdUnits(),  # noqa: B008  frozen
) -> int:
    """Run a verb and return its exit code.

    An error is shown as one or two lines on stderr; with --json also as a document on stdout.
    """
    as_json = wants_json(arguments)
    try:
        code = cli.main(
            args=list(arguments),
            prog_name="fleethub",
            standalone_mode=False,
            obj=Invocation(tuple(arguments), patience, units),
        )
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.NoSuchOption as error:
        return output.fail(_no_such_option(error), as_json)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        advice = f"See: {context.command_path} --help" if context else ""
        # click wraps its messages; a line break in a message would be shown escaped
        message = " ".join(error.format_message().split())
        return output.fail(Failure("usage", message, advice, EXIT_USAGE), as_json)
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except streams.ReaderGone as gone:
        streams.leave_quietly()
        return gone.exit_code
    except streams.Unwritable as failure:
        streams.leave_quietly()
        return output.fail(failure, as_json=False)
    except Failure as failure:
        return output.fail(failure, as_json)
    except SettingsError as error:
        return output.fail(Failure("settings", str(error), exit_code=EXIT_SETTINGS), as_json)
    except ClientError as error:
        return output.fail(failure_of(error), as_json)
    except FleethubError as error:
        return output.fail(Failure("failed", str(error)), as_json)
    except Exception as error:
        return output.fail(_unexpected(error), as_json)
    return code if isinstance(code, int) else EXIT_OK


def _no_such_option(error: click.NoSuchOption) -> Failure:
    verb = error.ctx.command_path if error.ctx else "this verb"
    if isinstance(error.ctx and error.ctx.command, click.Group):
        advice = f"A verb's options stand behind it: {verb} VERB {error.option_name}"
        return Failure("usage", error.format_message(), advice, EXIT_USAGE)
    if error.option_name in ("--hub", "--token-file"):
        return Failure(
            "local_only", f"{verb} works on this machine's own installation only", "Run it on that machine.", EXIT_USAGE
        )
    return Failure("usage", error.format_message(), f"See: {verb} --help", EXIT_USAGE)


def _unexpected(error: Exception) -> Failure:
    """A bug in fleethub as a failure: one line for the person, and the traceback in a file for whoever mends it."""
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    with contextlib.suppress(Exception):
        path = load().log / "cli.log"
        with path.open("a") as file:
            import traceback  # noqa: PLC0415  # it reads sources, and is hardly ever wanted

            file.write("".join(traceback.format_exception(error)))
        return Failure("unexpected", f"this should not happen: {what}", f"Its traceback is in {path}")
    return Failure("unexpected", f"this should not happen: {what}")


if __name__ == "__main__":
    main()
