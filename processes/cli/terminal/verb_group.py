"""The group of all verbs: its help shows them in sections, and for an unknown verb it suggests the nearest one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Final

import click

SHORT_HELP_CHARS = 160  # a verb's first sentence; the help's columns wrap it
NEAR: Final = 0.7  # how alike two verbs are, of 1, if one is taken for a slip of the other; guess: bogus is no logs
ANYWHERE: Final = {"--hub": True, "--token-file": True, "--json": False}  # options of verbs; True: with a value


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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what was typed: `help VERB` as VERB --help, and what of ANYWHERE stands before a verb as if it stood
        behind it.

        Raises: click.UsageError, if only such options were typed.
        """
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        first, rest = leading(args)
        if first and not rest:
            ctx.fail(f"there is no verb behind {' '.join(first)}")
        return super().parse_args(ctx, self._behind_the_verb(ctx, args) if rest else args)

    def _behind_the_verb(self, ctx: click.Context, words: list[str]) -> list[str]:
        """Return the words with what of ANYWHERE stands before a part of the verb (`token list` has two) moved behind
        the last part. Before a word that is no verb it is left out, so that the word is named, and not the option.
        """
        verb: list[str] = []
        moved: list[str] = []
        group: click.Command | None = self
        while isinstance(group, click.Group):
            first, rest = leading(words)
            group = group.get_command(ctx, rest[0]) if rest else None
            if group is None:
                return [*verb, *moved, *words] if verb else rest
            verb.append(rest[0])
            moved += first
            words = rest[1:]
        return [*verb, *moved, *words]

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

            close = difflib.get_close_matches(name, self.list_commands(ctx), 1, NEAR)
            ctx.fail(f"there is no verb {name!r}{f'; did you mean {close[0]}?' if close else ''}")
        return super().resolve_command(ctx, args)


def leading(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of ANYWHERE, with their values, that the words begin with, and all other words."""
    at = 0
    while at < len(words):
        name, given, _ = words[at].partition("=")
        if name not in ANYWHERE or (given and not ANYWHERE[name]):
            break
        at += 2 if ANYWHERE[name] and not given else 1
    return list(words[:at]), list(words[at:])
