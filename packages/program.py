"""What bin/package runs."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from packages import debian, tree


def main(words: list[str] | None = None) -> int:
    """Make what is asked for, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="bin/package", description="Make what fleethub is installed from, of what is installed here: no network."
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    deb = kinds.add_parser("deb", help=f"a Debian package, for Debians whose python3 is {tree.PYTHON}")
    deb.add_argument("--revision", default="1", help="the package's own number after fleethub's (default: 1)")
    deb.add_argument(
        "--compression", choices=("xz", "gzip", "none"), default="xz", help="smaller, or made faster (default: xz)"
    )
    made = kinds.add_parser("tree", help="the files alone, for packages/Containerfile and packages/nixos")
    for each, place in ((deb, "dist"), (made, "dist/tree")):
        each.add_argument("folder", nargs="?", type=Path, default=tree.HOME / place, help=f"default: {place}")
    options = parser.parse_args(words)
    try:
        if options.kind == "deb":
            print(debian.make(options.folder, options.revision, options.compression))
        else:
            _make_tree(options.folder)
    except (tree.NotPackable, OSError) as error:
        print(f"bin/package: {error}", file=sys.stderr)
        return 1
    return 0


def _make_tree(folder: Path) -> None:
    """Make the tree in the folder; one that was made there before is replaced. Raises: NotPackable, OSError."""
    if folder.exists() and list(folder.iterdir()) not in ([], [folder / "usr"]):
        raise tree.NotPackable(f"{folder} holds other things than a tree: name an empty folder")
    shutil.rmtree(folder / "usr", ignore_errors=True)
    tree.make(folder)
    print(folder)


if __name__ == "__main__":
    sys.exit(main())
