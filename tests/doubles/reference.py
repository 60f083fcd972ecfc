"""docs/settings.md, made of the settings and of the agent's file as the code has them, and the part of
docs/troubleshooting.md that is made of what can be wrong.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from processes.adapters import settings
from processes.agent import config
from processes.core.shown.troubles import TROUBLES

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
TROUBLESHOOTING: Final = PAGE.with_name("troubleshooting.md")
BEGIN: Final = "<!-- made by bin/reference: what can be wrong -->\n"
END: Final = "<!-- end of what can be wrong -->\n"
HEAD: Final = """\
# Settings

The hub's are in `fleethub.toml` of the state folder. The file does not exist at first: every key has a default. The
environment overrides each key, which is the way for containers; a list there is words, quoted as in a shell. A key that
is unknown, or a value that is wrong, is named with the nearest known key, and nothing starts. Each process reads the
settings when it starts: `fleethub down` and `fleethub up` make every change count.

Two more variables say where all of this is: `FLEETHUB_STATE` (the state folder; by default `var/` in a checkout, else
`/var/lib/fleethub`) and `FLEETHUB_CONFIG` (another file than its `fleethub.toml`).

This page is made of the code by `bin/reference`.

## fleethub.toml

"""
AGENT: Final = """
## agent.toml

The file of an agent, on its server. Paths count from the file's folder. Restart the agent to make a change count
(`systemctl restart fleethub-agent`); running commands go on. An agent whose file is wrong says what is wrong, and ends.
"""


def troubleshooting(text: str) -> str:
    """The text of docs/troubleshooting.md with every code, what it means and what to do, as the code has them."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [
        f"| `{code}` | {entry.severity} | {entry.means} | {entry.remedy.replace('{of}', 'NAME')} |\n"
        for code, entry in TROUBLES.items()
    ]
    table = ["\n", "| code | how bad | what it means | what to do |\n", "|---|---|---|---|\n", *rows, "\n"]
    return "".join([before, BEGIN, *table, END, after])


def page() -> str:
    """The whole page."""
    sections = list(msgspec.structs.fields(settings.File))
    top = [field for field in sections if not _is_section(field)]
    parts = [HEAD, _table(top, "")]
    for field in sections:
        if _is_section(field):
            about = " ".join((field.type.__doc__ or "").split())
            parts.append(f"\n### [{field.name}]\n\n{textwrap.fill(about, 120)}\n\n")
            parts.append(_table(msgspec.structs.fields(field.type), field.name))
    parts += [AGENT, "\n", _table(msgspec.structs.fields(config.File), None)]
    parts.append("\n### [commands.NAME]\n\nOnly what is listed can be run. No argument comes from the network.\n")
    parts += ["\n", _table(msgspec.structs.fields(config.Entry), None)]
    return "".join(parts)


def _is_section(field: msgspec.structs.FieldInfo) -> bool:
    return isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)


def _table(fields: Any, section: str | None) -> str:
    """A table of keys. section: of fleethub.toml; empty: its top; None: of a file that no environment overrides."""
    environment = section is not None
    rows = ["| key | default | may be | environment | |\n|---|---|---|---|---|\n" if environment else
            "| key | default | may be | |\n|---|---|---|---|\n"]  # fmt: skip
    for field in fields:
        default = "required" if field.required else f"`{_shown(field.default, field)}`"
        cells = [f"`{field.name}`", default, _limits(field.type)]
        if section is not None:
            cells.append("`" + "_".join(filter(None, ("FLEETHUB", section, field.name))).upper() + "`")
        rows.append("| " + " | ".join([*cells, _said(field.type)]) + " |\n")
    return "".join(rows)


def _shown(value: Any, field: msgspec.structs.FieldInfo) -> str:
    """The default as TOML has it."""
    made = field.default_factory() if value is msgspec.NODEFAULT else value
    return "not set" if made is None or made is msgspec.UNSET else msgspec.json.encode(made).decode()


def _limits(kind: Any) -> str:
    found = msgspec.json.schema(kind)
    low = found.get("minimum", found.get("exclusiveMinimum"))
    if low is not None and "maximum" in found:
        above = "more than " if "exclusiveMinimum" in found else ""
        return f"{above}{low:,.10g} to {found['maximum']:,.10g}"
    words = {"boolean": "true, false", "array": "a list", "string": "text", "object": "tables"}
    return words.get(str(found.get("type")), "")


def _said(kind: Any) -> str:
    return str(msgspec.json.schema(kind).get("description", ""))


def without_a_word() -> Iterator[str]:
    """The keys that have no description, but for those of a section whose own text says it all."""
    for section in msgspec.structs.fields(settings.File):
        inner = msgspec.structs.fields(section.type) if _is_section(section) else (section,)
        yield from (f"{section.name}.{key.name}" for key in inner if not _said(key.type) and section.name != "memory")
    for struct in (config.File, config.Entry):
        yield from (f"agent.toml: {key.name}" for key in msgspec.structs.fields(struct) if not _said(key.type))
