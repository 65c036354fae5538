"""The command `trainers`: parse, call, echo.

Commands import what they need when they run, so that ``trainers --help`` answers at once.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from blurgen import __version__
from blurgen.commands import Commands, Stoppable, WrongUsage, echo
from blurgen.options import click_options, nearest, resolve, resolve_together
from trainers.deblur_options import DeblurOptions
from trainers.eval_options import EvalOptions
from trainers.models import MODELS
from trainers.run_options import RunOptions

EXIT_FAILED, EXIT_BAD_INPUTS = 1, 3
NO_TORCH = 'trainers needs PyTorch, which is not installed: run `pip install "blurgen[train]"`'


class Trainers(Commands):
    """A group whose commands say in one sentence that PyTorch is missing, too."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the program."""
        # Threads of torch that wait for each other by spinning for long stand still where other programs use the
        # cores, a hundred times slower than one thread. To be said before torch is loaded.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", "3000")
        return super().main(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command named on the command line."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("torch", "safetensors"):
                raise
            raise click.ClickException(NO_TORCH) from error


@click.group(cls=Trainers, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trainers")
def main() -> None:
    """Train deblurring models on the shards of `blurgen make`, measure them, and deblur photographs with them."""


as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet = click.option("--quiet", is_flag=True, help="No progress.")


class Systems(click.Group):
    """A group with a command for each system, made from its Config when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the systems."""
        return sorted(MODELS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        """Return the command that trains the system `name`."""
        if name not in MODELS:
            raise WrongUsage(f"there is no system {name!r}: {nearest(name, MODELS)}")
        return _run_command(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names; what each takes is known to its module, which needs PyTorch."""
        with formatter.section("Systems"):
            for name in self.list_commands(ctx):
                formatter.write_text(name)


@main.group("run", cls=Systems, invoke_without_command=True, subcommand_metavar="NAME [OPTIONS]")
@click.pass_context
def run_group(ctx: click.Context) -> None:
    """Train a system, or continue to train it; `trainers run NAME --help` lists its options."""
    if ctx.invoked_subcommand is None:
        raise WrongUsage(f"trainers run needs the name of a system: {', '.join(sorted(MODELS))}")


def _run_command(name: str) -> click.Command:
    from trainers.data import DataOptions
    from trainers.models import method_class
    from trainers.single import SINGLE, SingleOptions

    system = method_class(name)
    data_options = SingleOptions if system.pairing == SINGLE else DataOptions

    @click.command(name, help=f"Train {name} ({system.paper}), or continue to train it.")
    @click_options(data_options)
    @click_options(RunOptions, parts=False)
    @click_options(system.Config, parts=False)
    @click.option("--dry-run", is_flag=True, help="Take a few steps, print sizes and times, write nothing.")
    @as_json
    @quiet
    def command(
        config_file: Path | None,
        assignments: tuple[str, ...],
        dry_run: bool,
        as_json: bool,
        quiet: bool,
        **flags: Any,
    ) -> None:
        parts = (system.Config, data_options, RunOptions)
        try:
            config, data, options = resolve_together(parts, flags, config_file, assignments, partial(_preset, system))
        except ValueError as error:
            raise WrongUsage(str(error)) from error
        with Stoppable():
            from trainers.loop import Job, train
            from trainers.sizes import dry_run as measure

            job = Job(system, config, data, options)
            facts = measure(job) if dry_run else train(job, quiet)
        if facts:  # of several processes, one has some
            echo(facts, as_json)

    return command


def _preset(system: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return what the preset named in `values` sets."""
    chosen = values.get("preset", "default")
    if chosen not in system.presets:
        raise ValueError(f"{system.name} has no preset {chosen!r}: {nearest(str(chosen), system.presets)}")
    return system.presets[chosen]


@main.command("list")
@as_json
def list_command(as_json: bool) -> None:
    """List the systems: paper, the data it needs, whether it needs VGG-19, parameters trained and of inference."""
    from trainers.sizes import list_systems

    rows = list_systems()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    click.echo(f"{'name':<15} {'paper':<24} {'data':<9} {'VGG-19':<7} {'parameters':>12} {'of inference':>13}")
    for row in rows:
        needs = f"{row['data']:<9} {'yes' if row['vgg'] else 'no':<7}"
        sizes = f"{row['parameters']:>12,} {row['parameters_of_inference']:>13,}"
        click.echo(f"{row['name']:<15} {row['paper']:<24} {needs} {sizes}")


@main.command("eval")
@click.argument("weights", required=False, type=click.Path(path_type=Path), metavar="[RUN_OR_WEIGHTS]")
@click.option(
    "--pairs",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="BLURRED SHARP",
    help="Folders of real pairs to measure on, matched by name, instead of shards.",
)
@click_options(EvalOptions)
@as_json
@quiet
def eval_command(
    weights: Path | None,
    pairs: tuple[Path, Path] | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Measure how well a run restores images that it was not trained on, beside the images as they are.

    Without RUN_OR_WEIGHTS, only the images as they are.

    Metrics: psnr, ssim, correlation, and the Fourier errors fourier and fourier_mag; d_vgg and lpips where their
    weights are at hand; with --segmenter iou, the mean intersection over union of the classes that a network sees in
    an image and in the sharp one, over all pixels of the set; with --ocr cer, the characters that Tesseract misreads
    over those that were set, of sharp images, too.
    """
    try:
        options = resolve(EvalOptions, flags, config_file, assignments)
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    with Stoppable("starts anew"):
        from trainers import report
        from trainers.evaluate import evaluate_each

        evaluations = evaluate_each(options, weights, pairs, quiet)
        summaries = []
        for evaluation, folder in zip(evaluations, report.folders_of(evaluations, options), strict=True):
            files = [str(path) for path in report.write(evaluation, folder)] if folder else []
            summaries.append(report.summary(evaluation) | {"files": files})
    if as_json:
        click.echo(json.dumps(summaries[0] if len(summaries) == 1 else {"sets": summaries}, indent=1))
        return
    for number, (evaluation, facts) in enumerate(zip(evaluations, summaries, strict=True)):
        click.echo("\n" if number else "", nl=False)
        _show(facts, report.table(evaluation))


def _show(facts: dict[str, Any], table: str) -> None:
    """Print one evaluation."""
    for note in facts["notes"]:
        click.echo(note, err=True)
    echo({name: value for name, value in facts.items() if name not in ("rows", "files", "notes")}, False)
    click.echo("\n".join(["", table, "", *facts["files"]]))


@main.command("deblur")
@click.argument("weights", type=click.Path(path_type=Path), metavar="RUN_OR_WEIGHTS")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click_options(DeblurOptions)
@as_json
@quiet
def deblur_command(
    weights: Path,
    inputs: tuple[Path, ...],
    config_file: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Deblur photographs: files, and folders with all images below them, of any size.

    Results are RGB PNG files with the depth and the alpha of the input, upright. Exit code 3: some inputs were left
    out; 1: all of them.
    """
    try:
        options = resolve(DeblurOptions, flags, config_file, assignments)
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    with Stoppable():
        from trainers.photographs import deblur_photographs

        outcome = deblur_photographs(options, weights, inputs, quiet, None if as_json else _echo_path)
    if as_json:
        click.echo(json.dumps(outcome.facts(), indent=1))
    elif outcome.kept and not quiet:
        click.echo(f"results that were there already: {len(outcome.kept)}; --overwrite makes them anew", err=True)
    if outcome.bad:
        sys.exit(EXIT_BAD_INPUTS if outcome.written or outcome.kept else EXIT_FAILED)


@main.command("export")
@click.argument("weights", type=click.Path(path_type=Path), metavar="RUN_OR_WEIGHTS")
@click.option("--out", type=click.Path(path_type=Path), help="The file. [default: like the weights, beside them]")
@click.option("--to", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="Format of the file.")
@click.option("--with-code", is_flag=True, help="A second input draws the code of the blur; else it is the mean.")
@as_json
def export_command(weights: Path, out: Path | None, to: str, with_code: bool, as_json: bool) -> None:
    """Write the network that deblurs for programs without PyTorch, and compare its results with PyTorch's.

    It takes batches of images of any size that is a multiple of what the file's metadata say, 64 px at least.
    """
    with Stoppable("starts anew"):
        from trainers.export import export

        exported = export(weights, out, to, with_code)
    echo(exported.facts(), as_json)


def _echo_path(path: Path) -> None:
    # As bytes, since not every file name is text.
    click.echo(os.fsencode(path))
