"""The group of all verbs: its help shows them in sections, and for an unknown verb it suggests the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import click

SHORT_HELP_CHARS = 160  # a verb's first sentence; the help's columns wrap it


class Verbs(click.Group):
    """A group whose verbs were added by section."""

    sections: Mapping[str, Sequence[click.Command]] = {}

    def add_sections(self, sections: Mapping[str, Sequence[click.Command]]) -> None:
        """Add the verbs, in the order in which the help shows them."""
        self.sections = sections
        for verbs in sections.values():
            for verb in verbs:
                self.add_command(verb)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs into the help, section by section."""
        for title, verbs in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(verb.name or "", verb.get_short_help_str(SHORT_HELP_CHARS)) for verb in verbs])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that was typed, as click wants it. Raises: click.UsageError, with the nearest verb."""
        name = args[0]
        if self.get_command(ctx, name) is None:
            close = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            ctx.fail(f"there is no verb {name!r}{f'; did you mean {close[0]}?' if close else ''}")
        return super().resolve_command(ctx, args)
