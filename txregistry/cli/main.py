"""`txregistry`: the operator's commands, each a module of this package with `add(commands)`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from txregistry.cli import adopt, config, copy, dump, key, reconcile, sign, storage, user, version


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="txregistry",
        description="Commands for whoever runs a registry. The registry itself is run by: twistd -n registry",
    )
    top.set_defaults(run=None, show=top)
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    adopt.add(commands)
    config.add(commands)
    copy.add(commands)
    dump.add(commands)
    key.add(commands)
    reconcile.add(commands)
    sign.add(commands)
    storage.add(commands)
    user.add(commands)
    version.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 if it succeeded, 1 if not, 2 if it was misspelled."""
    options = parser().parse_args(arguments)
    if options.run is None:
        options.show.print_help(sys.stderr)
        return 2
    try:
        status: int = options.run(options)
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is left in the buffer must not be tried again at the exit.
        sys.stdout = None
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
