"""Entry of `hauptbuch`: finds the command, runs it, turns what it raises into one line and an exit code.

Exit codes: 0 done, 1 checked and false, 2 could not run, 130 interrupted. A command is a function `run` in a module of
its own, with typer's annotations; it returns nothing or an exit code. Only the module of the command that is asked for
is imported, so that help is quick.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Annotated, Final, NamedTuple, NoReturn

import typer

from pipeline.cli.cluster_options import with_cluster_options
from pipeline.errors import ConfigError, HauptbuchError, VerificationFailed

DONE: Final = 0
FALSE: Final = 1
FAILED: Final = 2
INTERRUPTED: Final = 130

# Typer does not export the base class of what it raises for a wrong command line.
_USAGE_ERROR: Final[type[Exception]] = typer.BadParameter.__mro__[1]


class Command(NamedTuple):
    """`module` has the function `run`; `help` is its line in the list of commands; `cluster`: it may meet one."""

    module: str
    help: str
    cluster: bool = True


COMMANDS: Final[dict[str, Command]] = {
    "demo": Command("pipeline.cli.demo_command", "Real payments, a proof, an audit, tampered copies caught."),
    "init": Command("pipeline.cli.init_command", "Make the directory of a new ledger."),
    "keygen": Command("pipeline.cli.keygen_command", "Make a key and name its account.", cluster=False),
    "load": Command("pipeline.cli.load_command", "Play any CSV of payments."),
    "send": Command("pipeline.cli.send_command", "Pay one amount by hand."),
    "tx": Command("pipeline.cli.tx_command", "What became of a transaction."),
    "account": Command("pipeline.cli.account_command", "One account and its balances."),
    "accounts": Command("pipeline.cli.accounts_command", "All accounts and their balances."),
    "history": Command("pipeline.cli.history_command", "What moved into and out of an account."),
    "status": Command("pipeline.cli.status_command", "Shards, lag, bytes and the last root on one screen."),
    "roots": Command("pipeline.cli.roots_command", "Verified state roots, as they appear with --follow."),
    "prove": Command("pipeline.cli.prove_command", "Write a portable proof of a balance or of its absence."),
    "verify": Command("pipeline.cli.verify_command", "Check a proof offline.", cluster=False),
    "audit": Command("pipeline.cli.audit_command", "Replay the log and check all of it."),
    "worker": Command("pipeline.cli.worker_command", "Process shards of a ledger on Kafka."),
    "sync": Command("pipeline.cli.sync_command", "Propose rounds and publish signed roots on Kafka."),
    "attest": Command("pipeline.cli.attest_command", "Check and sign rounds on Kafka."),
}


class _Settings:
    """What stands before the command."""

    debug = False


def build_app(wanted: Collection[str], settings: _Settings | None = None) -> typer.Typer:
    """The application with the commands `wanted` loaded and the others listed only."""
    settings = settings or _Settings()
    app = typer.Typer(name="hauptbuch", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback()
    def options(
        debug: Annotated[bool, typer.Option("--debug", help="Show where an error was raised.")] = False,
        _version: Annotated[
            bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
        ] = False,
    ) -> None:
        """A sharded ledger on Kafka whose state anyone can verify."""
        settings.debug = debug

    for name, command in COMMANDS.items():
        app.command(name, short_help=command.help)(_loaded(command) if name in wanted else _listed)
    return app


def _loaded(command: Command) -> Callable[..., int | None]:
    function = _guarded(import_module(command.module).run)
    return with_cluster_options(function) if command.cluster else function


class _Interrupted(Exception):  # noqa: N818 - no error
    """SIGINT or SIGTERM came."""


class _OutputClosed(Exception):  # noqa: N818 - no error
    """Whoever read our output has had enough."""


def _guarded(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """The command, with what typer would turn into exit codes of its own renamed."""

    @wraps(function)
    def guarded(*args: object, **options: object) -> int | None:
        try:
            code = function(*args, **options)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            raise _Interrupted("; ".join(["interrupted", *_notes(error)])) from None
        except BrokenPipeError:
            raise _OutputClosed from None
        return code

    return guarded


def _listed() -> None:
    raise AssertionError("a command that was run was not loaded")


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            found = version("hauptbuch")
        except PackageNotFoundError:
            found = "not installed"
        typer.echo(f"hauptbuch {found}")
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Prints errors as one line on standard error."""
    settings = _Settings()
    arguments = list(arguments) or ["--help"]
    try:
        code = build_app([name for name in arguments if name in COMMANDS], settings)(
            args=arguments, prog_name="hauptbuch", standalone_mode=False
        )
    except _USAGE_ERROR as error:
        return _fail(_usage(error), FAILED)
    except (_Interrupted, KeyboardInterrupt) as error:
        return _fail(str(error) or "interrupted", INTERRUPTED)
    except _OutputClosed:
        # That is no failure; the interpreter's last flush shall not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except VerificationFailed as error:
        return _report(error, settings, FALSE)
    except HauptbuchError as error:
        return _report(error, settings, FAILED)
    except UnicodeEncodeError as error:  # what the shell handed over in other bytes, or a terminal of another encoding
        what = "an argument or variable is not UTF-8" if error.encoding == "utf-8" else "the output is not UTF-8"
        return _report(ConfigError(f"{what}; set LC_ALL to a UTF-8 locale such as C.UTF-8"), settings, FAILED)
    except Exception as error:  # noqa: BLE001 - a bug, told in one line like all else
        return _report(error, settings, FAILED, "internal error: ")
    return code if isinstance(code, int) else DONE


def _usage(error: BaseException) -> str:
    describe: Callable[[], str] = getattr(error, "format_message", error.__str__)
    context = getattr(error, "ctx", None)
    return f"{describe()} See `{getattr(context, 'command_path', 'hauptbuch')} --help`."


def _report(error: Exception, settings: _Settings, code: int, prefix: str = "") -> int:
    if settings.debug:
        traceback.print_exception(error, file=sys.stderr)
    message = "; ".join([str(error), *_notes(error)])
    if not prefix:
        return _fail(message, code)
    hint = "" if settings.debug else "; run `hauptbuch --debug ...` to see where"
    return _fail(f"{prefix}{type(error).__name__}: {message}{hint}", code)


def _notes(error: BaseException) -> list[str]:
    """What a command added to an error on its way here."""
    return getattr(error, "__notes__", [])


def _fail(message: str, code: int) -> int:
    print(f"hauptbuch: {' '.join(message.split())}", file=sys.stderr)
    return code


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """The console script. SIGTERM stops as cleanly as SIGINT does."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
