"""The machine and the versions that figures were measured on, and tables to show them in."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

from rich.table import Table

PACKAGES = ("cryptography", "fastavro", "rocksdict", "pqcrypto")


def machine(packages: Sequence[str] = PACKAGES) -> str:
    """One line."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def new_table(title: str, *columns: str) -> Table:
    """The first column to the left, figures to the right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table
