"""The group of all verbs: its help shows them in sections, and for an unknown verb it suggests the nearest one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

SHORT_HELP_CHARS = 160  # a verb's first sentence; the help's columns wrap it


class Verbs(click.Group):
    """A group whose verbs are found by section; the module of a verb is imported when the verb is wanted.

    (All of them together take longer to import than most verbs take to run.)
    """

    sections: Mapping[str, Mapping[str, str]] = {}

    @property
    def names(self) -> list[str]:
        """The names of all verbs, sorted."""
        return sorted(name for verbs in self.sections.values() for name in verbs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs."""
        return self.names

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the verb of that name, or None."""
        for verbs in self.sections.values():
            if cmd_name in verbs:
                verb: click.Command = getattr(importlib.import_module(verbs[cmd_name]), cmd_name.replace("-", "_"))
                return verb
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs into the help, section by section."""
        for title, names in self.sections.items():
            verbs = [(name, verb) for name in names if (verb := self.get_command(ctx, name)) is not None]
            with formatter.section(title):
                formatter.write_dl([(name, verb.get_short_help_str(SHORT_HELP_CHARS)) for name, verb in verbs])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that was typed, as click wants it. Raises: click.UsageError, with the nearest verb."""
        name = args[0]
        if self.get_command(ctx, name) is None:
            import difflib  # noqa: PLC0415  # for words that are no verbs

            close = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            ctx.fail(f"there is no verb {name!r}{f'; did you mean {close[0]}?' if close else ''}")
        return super().resolve_command(ctx, args)
