"""Progress of a long command, on stderr."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_SECONDS = 5.0  # least time between two lines of a log


@contextlib.contextmanager
def progress(verb: str) -> Iterator[Callable[[str], None]]:
    """A line that changes on a terminal; in a log a plain line, at most one every five seconds.

    Args:
      verb: the command, which starts every line.

    Yields:
      A function to call with the name of each step.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("reading") as status:
            yield lambda name: status.update(f"{verb}: {name}")
        return
    last = time.monotonic()

    def plain(name: str) -> None:
        nonlocal last
        if time.monotonic() - last > _SECONDS:
            last = time.monotonic()
            print(f"{verb}: {name}", file=sys.stderr, flush=True)

    yield plain
