"""What the commands of every program here share: errors as one sentence, exit codes, Ctrl-C, facts on stdout."""

import errno
import json
import os
import shlex
import signal
import sys
from typing import Any

import click

MOST_LINES = 20


class Terminated(BaseException):
    """SIGTERM has arrived."""


class WrongUsage(click.ClickException):
    """The command line asks for what there is not: one sentence, exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """A group whose commands end in one sentence when the user's input or the machine is at fault."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the program."""
        prepare_streams()
        return super().main(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command named on the command line."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, click.exceptions.Exit, click.Abort):
            raise
        except OSError as error:
            raise click.ClickException(_sentence(error)) from error
        except MemoryError as error:
            raise click.ClickException(f"there is not enough memory: {error}") from error
        except (ValueError, RuntimeError) as error:
            raise click.ClickException(str(error)) from error


def prepare_streams() -> None:
    """Make the three standard streams fit for use: open, and taking every letter.

    Where one is closed, the next file that is opened would get its number, and what a library prints into it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict":
            stream.reconfigure(errors="backslashreplace")


def _sentence(error: OSError) -> str:
    if error.strerror and error.filename is not None:
        path = os.fsdecode(error.filename)
        return f"{path}: {error.strerror}{_way_to(path) if error.errno == errno.ENOENT else ''}"
    return error.strerror or str(error)


def _way_to(path: str) -> str:
    """Return how shards are made that are missing: those of a run that is not finished, or one of a finished set."""
    if os.path.isdir(path + ".d"):
        return f"; {path}.d holds its shards: the same `blurgen make` goes on, or `blurgen index` finishes slices"
    if os.path.dirname(path).endswith(".d") and path.endswith(".h5"):
        return "; the `blurgen make` that made the others makes it again"
    return ""


class Stoppable:
    """Context in which Ctrl-C and SIGTERM end the command with their exit code and say how to go on.

    Parameters
    ----------
    next_time : str
        What the same command does next time.
    """

    def __init__(self, next_time: str = "continues"):
        self._next_time = next_time

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, *_: Any) -> None:
        raise Terminated

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        signal.signal(signal.SIGTERM, self._before)
        if isinstance(error, (KeyboardInterrupt, Terminated)):
            click.echo(f"\nstopped; the same command {self._next_time}: {_command_again()}", err=True)
            sys.exit(130 if isinstance(error, KeyboardInterrupt) else 143)


def _command_again() -> str:
    """Return the command line that goes on with what was begun, and so does not begin anew."""
    words = [word for word in sys.argv[1:] if word != "--overwrite"]
    return f"{click.get_current_context().find_root().info_name} {shlex.join(words)}"


def echo(facts: dict[str, Any], as_json: bool) -> None:
    """Print facts, one a line, or as JSON."""
    if as_json:
        click.echo(json.dumps(facts, indent=1, default=str))
        return
    for name, value in facts.items():
        if isinstance(value, list):
            click.echo(f"{name.replace('_', ' ')}: {len(value)}")
            for item in value[:MOST_LINES]:
                click.echo("  " + ", ".join(map(str, item.values())))
            if len(value) > MOST_LINES:
                click.echo(f"  and {len(value) - MOST_LINES:,} more: --json lists them all")
        elif isinstance(value, dict):
            click.echo(f"{name.replace('_', ' ')}: {json.dumps(value)}")
        else:
            click.echo(f"{name.replace('_', ' ')}: {f'{value:,}' if isinstance(value, int) else value}")
