"""The display of a study during and after its run: a line for each cell, and totals."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from train.command_line import one_line
from train.study.directory import CellStatus, declared, statuses


def table(found: Sequence[CellStatus]) -> list[str]:
    """The statuses as lines of text, followed by a line of totals.

    Each line shows state, stage, steps, rate, time left, loss, retries and the reason of a failure.
    """
    width = max(len(status.run_id) for status in found)
    digits = max(len(str(status.total)) for status in found)
    lines = []
    for s in found:
        rate = f"{s.rate:.3g} steps/s" if s.rate else ""
        left = f"{clock(s.left)} left" if s.left else ""
        nll = "" if s.nll is None else f"nll {s.nll:.3f}"
        again = f"{s.retries} retries" if s.retries > 1 else "1 retry" if s.retries else ""
        progress = f"{s.done:>{digits}}/{s.total:<{digits}}"
        notes = "; ".join(filter(None, (again, s.error)))
        line = (
            f"{s.run_id:{width}}  {s.state:9}  {s.stage:8}  {progress}  {rate:14}  {left:13}  "
            f"{nll:10}  {notes}"
        )
        # Names and reasons come from files, which may hold characters that control a terminal.
        lines.append(one_line(line.rstrip()))
    return [*lines, totals(found)]


def totals(found: Sequence[CellStatus], rate: float = 0.0) -> str:
    """One line on the study: cells by state, the share that is done, and the time left.

    Args:
      found: every cell.
      rate: work per second of the whole study (see `CellStatus.work`); 0 means the sum over the
        running cells, which ignores the time that is not spent on steps.
    """
    counts = {
        state: sum(s.state == state for s in found)
        for state in dict.fromkeys(s.state for s in found)
    }
    done, total = work_done(found), sum(s.work for s in found)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    words = [states, f"{100 * done / max(total, 1):.0f} % done"]
    rate = rate or sum(s.rate * _of_a_step(s) for s in found if s.state == "running" and s.rate)
    if rate > 0 and done < total:  # `done` may fall when a cell resumes from its checkpoint
        words.append(f"about {clock((total - done) / rate)} left")
    if retries := sum(s.retries for s in found):
        words.append("1 retry" if retries == 1 else f"{retries} retries")
    return "; ".join(words)


def work_done(found: Sequence[CellStatus]) -> float:
    """The work of all steps that are done; a large model's count for more than a small one's."""
    return sum(s.done * _of_a_step(s) for s in found)


def news(found: Sequence[CellStatus], before: Mapping[str, str]) -> list[str]:
    """A line for each cell that has ended since its state was as in `before`."""
    return [
        one_line(f"{s.run_id}: {s.state}" + (f", {s.error}" if s.error else _loss(s)))
        for s in found
        if s.state in ("done", "failed") and before.get(s.run_id) != s.state
    ]


def now(found: Sequence[CellStatus]) -> str:
    """The cells that are running, with their last training losses."""
    return one_line(", ".join(f"{s.run_id}{_loss(s)}" for s in found if s.state == "running"))


def _loss(s: CellStatus) -> str:
    return "" if s.nll is None else f" nll {s.nll:.3f}"


def _of_a_step(s: CellStatus) -> float:
    return s.work / max(s.total, 1)


def follow(directory: Path, every: float) -> int:
    """Shows a study repeatedly until nothing is left to do; returns the number of failed cells.

    On a terminal the table is redrawn in place; elsewhere the totals and the changes are printed as
    lines.

    Raises:
      InputError: the directory contains neither a study nor runs.
    """
    before: dict[str, str] = {}
    live = _live() if sys.stdout.isatty() else None
    try:
        while True:
            found = statuses(declared(directory), directory)
            if live:
                live.update(_text(table(found)), refresh=True)
            else:
                changed = [s for s in found if before.get(s.run_id) != s.state]
                lines = table(changed)[:-1] if changed else []
                print("\n".join([*lines, totals(found)]), flush=True)
            states = {s.run_id: s.state for s in found}
            failed = sum(state == "failed" for state in states.values())
            ended = all(state in ("done", "failed") for state in states.values())
            if ended and (
                not failed or states == before
            ):  # a launcher that retries would have started by now
                return failed
            before = states
            time.sleep(every)
    finally:
        if live:
            live.stop()


def _text(lines: Sequence[str]):
    """The lines as plain text, since rich would read brackets in them as markup."""
    from rich.text import Text

    return Text("\n".join(lines))


def _live():
    from rich.live import Live

    live = Live(auto_refresh=False)
    live.start()
    return live


def clock(seconds: float) -> str:
    """A time in a readable unit: 45 s, 12 min, 3.4 h, 5.1 d."""
    for unit, size, digits in (("d", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 2 * size or (unit == "min" and seconds >= size):
            return f"{seconds / size:,.{digits}f} {unit}"
    return f"{seconds:.0f} s"
