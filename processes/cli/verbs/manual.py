"""The verbs `completion` and `man`: both are made from the verbs themselves, so that they cannot contradict them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import click
from click.shell_completion import get_completion_class

from processes.cli.terminal.failure import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOT_ACCEPTED,
    EXIT_OK,
    EXIT_READER_GONE,
    EXIT_UNANSWERED,
    EXIT_UNKNOWN,
    EXIT_USAGE,
    Failure,
)
from processes.core.errors import EXIT_BROKEN, EXIT_SETTINGS

PROGRAM = "fleethub"
COMPLETE = "_FLEETHUB_COMPLETE"  # the variable by which click recognizes a call of the shell's completion
EXIT_CODES = {
    EXIT_OK: "done",
    EXIT_FAILED: "failed, or not done on every host; of status: degraded; of doctor: something should be looked at",
    EXIT_USAGE: "wrongly used; of status: stalled or down; of doctor: something is wrong",
    EXIT_UNKNOWN: "of status: unknown",
    EXIT_UNANSWERED: "of run: a host had not answered at --wait, or the hub had not answered for 10 minutes",
    EXIT_NOT_ACCEPTED: "of run: the hub did not accept the run",
    EXIT_BROKEN: "of agent: a bug, or an agent runs already",
    EXIT_SETTINGS: "a wrong setting",
    EXIT_INTERRUPTED: "interrupted",
    EXIT_READER_GONE: "the reader of the output is gone",
}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the shell code that completes fleethub's verbs; for bash: eval "$(fleethub completion bash)"."""
    kind = get_completion_class(shell)
    if kind is None:
        raise Failure("no_completion", f"there is no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, PROGRAM, COMPLETE).source())


@click.command()
@click.pass_context
def man(context: click.Context) -> None:
    """Print the manual page: fleethub man | man -l -"""
    root = context.find_root().command
    assert isinstance(root, click.Group)
    click.echo("\n".join(page(root)))


def page(root: click.Group) -> Iterator[str]:
    """The manual page of a command line in the format of man(7), in pieces."""
    yield f'.TH FLEETHUB 1 "" "fleethub {metadata.version("fleethub")}" "User Commands"'
    yield f".SH NAME\n{PROGRAM} \\- {_text(root.get_short_help_str(200))}"
    yield f".SH SYNOPSIS\n.B {PROGRAM}\nVERB [\\fIOPTION\\fR]..."
    yield ".SH VERBS"
    for name, verb in _verbs(root):
        context = click.Context(verb, info_name=name)
        usage = " ".join(verb.collect_usage_pieces(context))
        yield f".SS {PROGRAM} {_text(name)} {_text(usage)}"
        yield from (f".PP\n{_text(part)}" for part in (verb.help or "").split("\n\n"))
        for option in verb.params:
            record = option.get_help_record(context)
            if record is not None:
                yield f".TP\n.B {_text(record[0])}\n{_text(record[1])}"
    yield ".SH EXIT STATUS"
    yield from (f".TP\n.B {code}\n{_text(words)}" for code, words in EXIT_CODES.items())
    yield ".SH ENVIRONMENT"
    yield ".TP\n.B FLEETHUB_STATE\nThe state folder; /var/lib/fleethub if not set, or var/ in a checkout."
    yield ".TP\n.B FLEETHUB_CONFIG"
    yield "The file of settings, if it is not fleethub.toml in the state folder. FLEETHUB_SECTION_KEY is one setting."
    yield ".TP\n.B FLEETHUB_HUB, FLEETHUB_TOKEN_FILE"
    yield "The same as \\-\\-hub and \\-\\-token\\-file: ask another installation than this machine's."


def _verbs(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in sorted(group.list_commands(context)):
        verb = group.get_command(context, name)
        if isinstance(verb, click.Group):
            yield from _verbs(verb, f"{before}{name} ")
        elif verb is not None:
            yield f"{before}{name}", verb


def _text(text: str) -> str:
    """The text as roff prints it literally: on one line, with its special characters escaped."""
    return " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
