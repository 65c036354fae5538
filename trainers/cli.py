"""The command `trainers`."""

import click


@click.command(context_settings={"help_option_names": ["-h", "--help"], "ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def main(words: tuple[str, ...]) -> None:
    """Train deblurring models on the shards of `blurgen make` (not in this release)."""
    raise click.ClickException(
        "this release makes the data only: the trainers of deblurring models (disentangled representations, "
        "CycleGAN, DeblurGAN, VEGAN, SinGAN) come with the next one."
    )
