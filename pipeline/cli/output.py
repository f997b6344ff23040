"""What commands print: data on standard output, remarks and progress on standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

_WIDE: Final = 10_000  # columns where nobody's screen limits us: addresses are never cut


def line(text: str = "") -> None:
    """One line of data."""
    print(text)


def json_line(value: dict[str, Any]) -> None:
    """One object a line, ASCII, fields in the order given."""
    print(json.dumps(value))


def flush() -> None:
    """Give what was printed to whoever follows it."""
    sys.stdout.flush()


def note(text: str) -> None:
    """A remark for the person, not for the pipe."""
    print(text, file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table with a header; columns named in `right` are aligned right. Text is printed as it is, without markup."""
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*[Text(cell) for cell in row])
    console = Console(width=_WIDE, highlight=False, markup=False, no_color=not sys.stdout.isatty())
    with console.capture() as capture:
        console.print(grid)
    for text in capture.get().splitlines():
        print(text.rstrip())


def when(time_ms: int) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar on standard error where that is a terminal, silence elsewhere: call with stage, how far, of how much."""
    if not sys.stderr.isatty():
        yield _nowhere
        return
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(stage: str, done: int, total: int | None) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield show


def _nowhere(_stage: str, _done: int, _total: int | None) -> None:
    """Nobody looks."""
