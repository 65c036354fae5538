"""The command `trainers`: parse, call, echo.

Commands import what they need when they run, so that ``trainers --help`` answers at once.
"""

import click

from blurgen import __version__
from blurgen.commands import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trainers")
def main() -> None:
    """Train deblurring models on the shards of `blurgen make`, measure them, and deblur photographs with them."""
