"""A log's lines are ours alone: whatever a client said, one event is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WRITE = """
import logging, sys
from pathlib import Path
from processes.adapters import logs
log = logs.open_log(Path(sys.argv[1]), "hub")
said = "a\\n2026-01-01 level='info' event='forged'\\r\\x1b[2J\\x9b31m\\u202e\\u2028\\x00\\ud800"
log.warning(said, host=said, names=[said], **{"by": {said: said}})
try:
    raise ValueError(said)
except ValueError:
    log.error("raised", exc_info=True)
    logging.getLogger("a.library").error("failed: %s", said, exc_info=True)
logs.close()
"""


def test_no_words_from_outside_make_a_second_line_or_a_control_character(tmp_path: Path) -> None:
    """In the event, a value, inside a list, in an exception's text and in what a library logs."""
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path)], check=True)
    text = (tmp_path / "hub.log").read_text()
    lines = text.split("\n")
    assert len(lines) == 4
    assert lines[3] == ""
    assert all(line.isprintable() for line in lines)
    assert ["forged" in line for line in lines] == [True, True, True, False]


FULL = """
import sys
from pathlib import Path
from processes.adapters import logs
log = logs.open_log(Path(sys.argv[1]), "hub")
for number in range(2_000):
    log.warning("a line", number=number)
logs.close()
print("went on")
"""


def test_on_a_full_disk_a_line_is_lost_and_its_process_goes_on_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "hub.log").symlink_to("/dev/full")
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
