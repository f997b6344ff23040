"""What commands take from around them: passphrase, settings, the directory's running node."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from pipeline.config import load_config
from pipeline.node.layout import NodeLayout
from pipeline.node.node import Node

PASSPHRASE_VARIABLE: Final = "HAUPTBUCH_PASSPHRASE"  # noqa: S105 - the name of a variable

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A directory that `hauptbuch init` made.")]
AcceptTime = Annotated[
    bool, typer.Option("--accept-time", help="This machine's clock is right, however far it is ahead of the ledger.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line; amounts in minor units, as strings.")]


def passphrase() -> str:
    """The passphrase of key files; "" where none is set."""
    return os.environ.get(PASSPHRASE_VARIABLE, "")


@contextmanager
def running_node(root: Path, *, accept_time: bool) -> Iterator[Node]:
    """Run the node of a directory in this process. Raises `ConfigError` where another process holds its lock."""
    layout = NodeLayout(root)
    layout.chain()  # first of all: whether this is a ledger
    config = load_config(layout.config, os.environ)
    node = Node.open(root, passphrase(), config=config, accept_time=accept_time)
    try:
        yield node
    finally:
        node.close()
