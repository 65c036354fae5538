"""The command `blurgen`: parse, call, echo.

Commands import what they need when they run, so that ``blurgen --help`` answers at once.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from blurgen import __version__
from blurgen.commands import Commands, Stoppable, WrongUsage, echo
from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import click_options, parse_value, resolve_together, to_toml
from blurgen.progress import ProgressLine

EXIT_BAD_INPUTS = 3


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="blurgen")
def main() -> None:
    """Turn sharp images into motion-blurred training data."""


as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet = click.option("--quiet", is_flag=True, help="No progress.")
existing = click.argument("path", type=click.Path(path_type=Path))


@main.command("make")
@click_options(MakeOptions)
@click_options(RunOptions, parts=False)
@click.option(
    "--max-bad", type=click.IntRange(0), metavar="N", help="Exit with 3 if more than N images had to be left out."
)
@click.option("--dry-run", is_flag=True, help="Print the plan, the bytes needed and free, and the time it will take.")
@as_json
@quiet
def make_command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    max_bad: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Make shards of sharp and blurred images, or continue to make them."""
    try:
        options, run_options = resolve_together((MakeOptions, RunOptions), flags, config_file, assignments)
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    started = time.monotonic()
    with Stoppable():
        from blurgen import pipeline
        from blurgen.plan import make_plan
        from blurgen.shards import write_text

        try:
            plan = make_plan(options)
        except ValueError as error:
            raise WrongUsage(str(error)) from error
        if dry_run:
            echo(pipeline.estimate(plan, options.out, run_options), as_json)
            return
        with ProgressLine(quiet) as line:
            progress = pipeline.make(plan, options.out, run_options, line.show)
    write_text(options.out.with_name(options.out.name + ".toml"), to_toml(options))
    summary: dict[str, Any] = {"out": str(options.out)}
    if run_options.slice:
        summary |= {"slice": f"{run_options.slice.number}/{run_options.slice.count}", "samples": progress.done}
    else:
        summary |= _contents(options.out)
    summary["seconds"] = round(time.monotonic() - started, 2)
    summary["left_out"] = [bad._asdict() for bad in progress.bad]
    echo(summary, as_json)
    if run_options.slice:
        click.echo(f"once all slices are done, `blurgen index {options.out}` finishes", err=True)
    if max_bad is not None and len(progress.bad) > max_bad:
        click.echo(f"{len(progress.bad)} images were left out, more than --max-bad {max_bad} allows", err=True)
        sys.exit(EXIT_BAD_INPUTS)


def _contents(path: Path) -> dict[str, Any]:
    """Return what a finished file holds: samples, arrays, and bytes, those of its shards among them."""
    from blurgen.shards import open_shards, shard_paths

    shards = open_shards(path)
    size = sum(one.stat().st_size for one in {path, *shard_paths(path)})
    return {"samples": len(shards), "holds": ", ".join(shards.layout.arrays), "bytes": size}


@main.command("index")
@existing
@click.option("--pack", is_flag=True, help="Pack the shards into one plain file, instead of a master beside them.")
@as_json
def index_command(path: Path, pack: bool, as_json: bool) -> None:
    """Finish PATH, the --out of a run whose slices were made by `make --shard`; name the shards that are missing."""
    with Stoppable():
        from blurgen import pipeline

        progress = pipeline.index(path, pack)
    bad = [bad._asdict() for bad in progress.bad]
    echo({"out": str(path), **_contents(path), "left_out": bad}, as_json)


@main.command("kernels")
@click.option("--model", default="deblurgan", show_default=True, metavar="NAME", help="Kernel preset or model.")
@click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="Set a field of the model.")
@click.option(
    "-n", "count", type=click.IntRange(1), default=64, show_default=True, metavar="N", help="How many to draw."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Seed of the draws.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="kernels.png", show_default=True, help="A .h5, .npz or .png file."
)
def kernels_command(model: str, assignments: tuple[str, ...], count: int, seed: int, out: Path) -> None:
    """Draw kernels: numbers into an .h5 or .npz file, or a contact sheet into a .png."""
    from blurgen.export import write_kernels
    from blurgen.kernels import kernel_model

    fields = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise WrongUsage(f"--set takes FIELD=VALUE, got {assignment!r}")
        fields[name.removeprefix("kernel.")] = parse_value(text)
    try:
        chosen = kernel_model(model, **fields)
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    shape = write_kernels(out, chosen, count, seed)
    click.echo(f"{out}: {shape[0]} kernels of {shape[1]}x{shape[2]} px")


@main.command("sources")
@click.argument("name", required=False)
@click.option("--root", type=click.Path(path_type=Path), help="Look here instead of $BLURGEN_DATA and ./data.")
@as_json
def sources_command(name: str | None, root: Path | None, as_json: bool) -> None:
    """List the datasets that blurgen knows, or show one: licence, citation, how to get it, how it must lie."""
    from blurgen.recipes import list_sources, load_recipe

    if name is not None:
        recipe = load_recipe(name)
        shown = ("title", "homepage", "licence", "spdx", "author", "citation", "obtain")
        layouts = [
            {"layout": one.name, **{split or "all": " ".join(globs) for split, globs in one.splits}}
            for one in recipe.layout
        ]
        echo({key: getattr(recipe, key) for key in shown} | {"layouts": layouts}, as_json)
        return
    rows = [row._asdict() for row in list_sources(root)]
    if as_json:
        click.echo(json.dumps(rows, indent=1, default=str))
        return
    for row in rows:
        click.echo(f"{row['name']:<11} {_found(row):<26} {row['title'].partition(';')[0]} [{row['licence']}]")


def _found(row: dict[str, Any]) -> str:
    """Return whether a dataset is there, with how many of its images."""
    if row["count"] is None:
        return "built in"
    if row["path"] is None:
        return f"not found ({row['expected']:,} images)" if row["expected"] else "not found"
    return f"{row['count']:,} of {row['expected']:,} images" if row["expected"] else f"{row['count']:,} images"


@main.command("info")
@existing
@as_json
def info_command(path: Path, as_json: bool) -> None:
    """Show what a file of shards holds, how it was made, and under which licence."""
    from blurgen.inspect_shards import describe

    echo(describe(path), as_json)


@main.command("verify")
@existing
@click.option(
    "--deep", type=click.IntRange(1), metavar="K", help="Render K random samples again, from file and sources."
)
@click.option("--src", metavar="NAME", help="With --deep: where the images are, if not where the recipe says.")
@click.option("--root", type=click.Path(path_type=Path), metavar="PATH", help="With --deep: the dataset's folder.")
@click.option("--set", "assignments", multiple=True, metavar="A.B=C", help="With --deep: a file, as kernel.file=PATH.")
@click.option("--labels", metavar="PATH", help="With --deep: where the label maps are, as for make.")
@click.option("--priors", type=click.Path(path_type=Path), metavar="PATH", help="With --deep: the same for priors.")
@click.option("--seed", type=int, default=None, metavar="N", help="With --deep: which samples; random without it.")
def verify_command(path: Path, deep: int | None, seed: int | None, **places: Any) -> None:
    """Check every checksum, id, kernel and row of a file; name what is wrong."""
    from blurgen.pipeline import count_samples
    from blurgen.shards import verify

    if not path.exists():
        raise click.ClickException(f"{path}: there is no such file")
    if (any(places.values()) or seed is not None) and not deep:
        raise WrongUsage(
            "--src, --root, --set, --labels, --priors and --seed need --deep: say how many samples to render again"
        )
    _end_with(verify(path))
    samples = count_samples(path)
    click.echo(f"{path}: {samples:,} samples, no problem found")
    if deep:
        from blurgen.rerender import Places, rerender

        _end_with(rerender(path, deep, Places(**places), seed))
        click.echo(f"{path}: {min(deep, samples):,} samples rendered again, all the same")


def _end_with(problems: list[str]) -> None:
    """End the command if there are problems, and print them."""
    if problems:
        click.echo("\n".join(problems))
        sys.exit(1)


@main.command("preview")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default="preview.png", show_default=True, help="The .png to write."
)
@click.option(
    "-n", "count", type=click.IntRange(1), default=6, show_default=True, metavar="N", help="Samples of a file."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Which samples.")
@click.option("--histogram/--no-histogram", default=True, help="Plot the blur extents below.  [default: on]")
def preview_command(paths: tuple[Path, ...], out: Path, count: int, seed: int, histogram: bool) -> None:
    """Draw a sheet of samples, sharp | blurred | kernel | maps, and a histogram of blur extents."""
    from blurgen.inspect_shards import preview

    preview(paths, out, count, seed, histogram)
    click.echo(str(out))


@main.command("pack")
@existing
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
def pack_command(path: Path, out: Path) -> None:
    """Pack a folder of shards, or a master file with its shards, into one plain file."""
    from blurgen.pipeline import pack_shards

    click.echo(f"{out}: {pack_shards(path, out)} samples")


@main.command("doctor")
def doctor_command() -> None:
    """Check that this installation works: libraries, compiler cache, fonts, disk, a sample rendered twice."""
    from blurgen.doctor import checks

    failed = 0
    for name, problem, detail in checks():
        failed += problem
        click.echo(f"{'FAIL' if problem else 'ok  '} {name}: {detail}")
    if failed:
        raise click.ClickException(f"{failed} check{'s' * (failed > 1)} failed")
