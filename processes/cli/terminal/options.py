"""Options that several verbs share."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from processes.adapters.machine.systemd_units import SystemdUnits
from processes.adapters.settings import Settings, load, load_anyway
from processes.cli.terminal import output
from processes.cli.terminal.failure import EXIT_USAGE, Failure
from processes.cli.terminal.text import age
from processes.client.errors import NotAnAddress
from processes.client.patience import Patience

if TYPE_CHECKING:
    from processes.client.api import Api

JSON_ASKED: Final = f"{__name__}.json"
FORMS: Final = ("json", "wide", "name")
UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}

Verb = TypeVar("Verb", bound=Callable[..., object])


class Invocation(NamedTuple):
    """One run of the command line: the typed words, how long it may ask a hub again, and where the machine's units are.
    click carries it as `obj`.
    """

    words: tuple[str, ...] = ()
    patience: Patience = Patience()
    units: SystemdUnits = SystemdUnits()


def invocation() -> Invocation:
    """The invocation of the running verb."""
    context = click.get_current_context(silent=True)
    return (context.find_object(Invocation) if context else None) or Invocation()


class Seconds(click.ParamType[float]):
    """A finite time from 0 to `most_s`, typed as a number of seconds or with a unit: 90, 90s, 10m. `words` state that
    limit in the error message.
    """

    name = "time"

    def __init__(self, most_s: float | None = None, words: str = "") -> None:
        self.most_s, self.words = most_s, words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds that were meant. Raises: click.BadParameter."""
        typed, unit_s = str(value), UNITS_S.get(str(value)[-1:], 1.0)
        try:
            found = float(typed[:-1] if typed[-1:] in UNITS_S else typed) * unit_s
        except ValueError:
            found = math.nan
        if not (math.isfinite(found) and found >= 0) or (self.most_s is not None and found > self.most_s):
            limit = f", {self.words}" if self.words else ""
            self.fail(f"{value!r} is not a time: type seconds, or a unit too, as in 90s, 10m, 12h{limit}", param, ctx)
        return found


class Duration(click.ParamType[float]):
    """A length of time in seconds, typed as a number with its unit: 90s, 15m, 12h, 7d, 4w."""

    name = "duration"

    def __init__(self, least_s: float, most_s: float) -> None:
        self.least_s, self.most_s = least_s, most_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds that were meant. Raises: click.BadParameter."""
        found = re.fullmatch(r"(\d{1,9})([smhdw])", str(value))
        if found is None:
            self.fail(
                f"{value!r} is no length of time: type a number with its unit, as in 90s, 15m, 12h, 7d", param, ctx
            )
        seconds = float(found[1]) * UNITS_S[found[2]]
        if not self.least_s <= seconds <= self.most_s:
            limits = f"from {age(self.least_s)} to {age(self.most_s)}"
            self.fail(f"{value} is too {'short' if seconds < self.least_s else 'long'}: {limits}", param, ctx)
        return seconds


def as_json(verb: Verb) -> Verb:
    """Give the verb --json: one JSON document on stdout, and nothing else there. -o json is the same."""

    def also(context: click.Context, _: click.Parameter, typed: Any) -> Any:
        # what was typed comes first, and the option that was left out behind it
        context.meta[JSON_ASKED] = context.meta.get(JSON_ASKED) or bool(typed)
        return context.meta[JSON_ASKED]

    other = click.option(
        "-o", "--output", type=click.Choice(["json"]), hidden=True, expose_value=False, callback=also, is_eager=True
    )
    return click.option(
        "--json", "as_json", is_flag=True, callback=also, help="One JSON document on stdout; -o json is the same."
    )(other(verb))


def listed(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Give the verb what a listing has: --json, -o, --wide and --sort. It gets `as_json` and `form`."""

    @functools.wraps(verb)
    def asked(*, as_json: bool, output_form: str | None, wide: bool, sort: str, **others: Any) -> Any:
        form = output.Form(wide or output_form == "wide", output_form == "name", sort)
        return verb(as_json=as_json or output_form == "json", form=form, **others)

    options = (
        click.option(
            "-o",
            "--output",
            "output_form",
            type=click.Choice(FORMS),
            help="json: as --json; wide: as --wide; name: only what names each, one a line.",
        ),
        click.option("--wide", is_flag=True, help="All columns, with whole ids and exact times, however wide."),
        click.option("--sort", default="", metavar="COLUMN", help="Sort by a column; -COLUMN: the largest first."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
    )
    for option in reversed(options):
        asked = option(asked)
    return asked


def wants_json(words: Sequence[str]) -> bool:
    """Return whether one JSON document is wanted of what was typed, be it understood or not."""
    pairs = itertools.pairwise(words)
    joined = ("--json", "-ojson", "--output=json")
    return any(word in joined for word in words) or any(
        pair in (("-o", "json"), ("--output", "json")) for pair in pairs
    )


def sure(verb: Verb) -> Verb:
    """Give the verb --yes: the person is not asked."""
    return click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")(verb)


def asks_hub(verb: Verb) -> Verb:
    """Give the verb --hub and --token-file, which ask another installation than this machine's."""
    verb = click.option(
        "--hub", envvar="FLEETHUB_HUB", help="URL of another hub's operators' port. [default: this machine's hub]"
    )(verb)
    return click.option(
        "--token-file",
        envvar="FLEETHUB_TOKEN_FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File that holds the operator token to use.",
    )(verb)


@contextlib.contextmanager
def asking(hub: str | None, token_file: Path | None) -> Iterator[Api]:
    """Open the API, and close it afterwards. With --hub, nothing of this machine's installation is read.

    Raises: SettingsError, Failure, click.UsageError, NoToken.
    """
    from processes.cli.machine.own_hub import open_own  # noqa: PLC0415  # with it comes the client, for verbs that ask

    _spare_httpx_its_verb()
    with open_own(load(), token_file, invocation().patience) if hub is None else _elsewhere(hub, token_file) as api:
        yield api


def _spare_httpx_its_verb() -> None:
    """Have httpx not load what is only for its own command line: rich and pygments, the half of its start."""
    verb = ModuleType("httpx._main")
    verb.main = lambda: None  # type: ignore[attr-defined]  # what httpx takes from there
    sys.modules.setdefault(verb.__name__, verb)


def _elsewhere(hub: str, token_file: Path | None) -> Api:
    from processes.client.api import open_remote  # noqa: PLC0415  # as above

    if token_file is None:
        said = f"--hub {hub} needs --token-file"
        raise Failure("no_token", said, "The local operator token is not sent elsewhere.", EXIT_USAGE)
    try:
        return open_remote(hub, token_file, invocation().patience)
    except NotAnAddress as error:
        raise click.UsageError(str(error)) from None


def settings_anyway() -> Settings:
    """The settings. If there is a mistake in them, it is told, and the defaults are returned. Raises: NotOurs."""
    settings, mistake = load_anyway()
    if mistake:
        output.note(f"fleethub: {mistake}; the defaults are used instead")
    return settings
