"""Train and measure a system as its paper did; print the reported rows beside those measured here.

    python benchmarks/repro/run.py NAME [--scale paper|small] [--out DIR] [--photos SRC] [--file NAME=PATH] [--dry-run]

NAME.toml beside this file holds data, schedule, the options of each variant, seeds, and the rows that the paper reports
with their citation. The commands are those that a user would type: `blurgen make`, `trainers run`, `trainers eval`. A
stopped reproduction is continued by the same command. `--scale small` is the same chain at a width and length that a
CPU can train: it shows that everything works together, and its figures are to be compared with no paper's.
`--dry-run` prints the commands and the rows that are known.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

FOLDER = Path(__file__).parent
SCALES = ("paper", "small")
BUILT_IN_PHOTOS = "leaves"
NOT_MEASURED = "not measured"
SMALL = "At the small scale the chain is the same, and the figures are to be compared with no paper's."
INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class Variant:
    """One way to train a system.

    Attributes
    ----------
    name, system : str
    train, eval : str
        Options of `trainers run` and `trainers eval`; ``{name}`` stands for a file, ``{name_folder}`` for where it is,
        ``{name_run}`` for the run of a variant above with the same seed.
    """

    name: str
    system: str
    train: str
    eval: str


@dataclass(frozen=True)
class Row:
    """Figures of a variant: what a paper reports, or what was measured once on some machine.

    Attributes
    ----------
    variant, of : str
        The variant, and what the row is of.
    citation : str
        Where it is from; of measured rows, on what it was measured.
    scale : str
        At which scale.
    values : dict
        Metric -> value.
    """

    variant: str
    of: str
    citation: str
    values: Mapping[str, float]
    scale: str = "paper"


@dataclass(frozen=True)
class Reproduction:
    """What a file of this folder says, at one scale.

    Attributes
    ----------
    name, source, protocol, schedule : str
        The file's name, what is reproduced, what the figures can be compared with, and how long it is trained.
    data : dict
        Name of a file -> options of `blurgen make`.
    files : dict
        Name of a file that the user must give -> what it is.
    variants : tuple of Variant
    seeds : tuple of int
    rows : tuple of Row
        Reported, and measured earlier.
    """

    name: str
    source: str
    protocol: str
    schedule: str
    data: Mapping[str, str]
    files: Mapping[str, str]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    reported: tuple[Row, ...]
    measured: tuple[Row, ...]


def names() -> list[str]:
    """Return the names of all reproductions."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str, scale: str = "paper") -> Reproduction:
    """Return the reproduction `name` at a scale of `SCALES`.

    Raises
    ------
    ValueError
        There is none of that name, or a row of its file has no citation or no variant.
    """
    if name not in names():
        raise ValueError(f"there is no reproduction {name!r}: known are {', '.join(names())}")
    values = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    small = values["small"] if scale == "small" else {}
    variants = []
    for key, words in values["variants"].items():
        changed = small.get("variants", {}).get(key, {})
        train = f"{changed.get('train', words['train'])} {small.get('train', '')}"
        evaluate = changed.get("eval", small.get("eval", words.get("eval", "")))
        variants.append(Variant(key, words.get("system", values["system"]), train, evaluate))
    rows = {kind: tuple(_row(name, row) for row in values.get(kind, ())) for kind in ("reported", "measured")}
    unknown = {row.variant for row in (*rows["reported"], *rows["measured"])} - {*values["variants"], INPUT}
    if unknown:
        raise ValueError(f"{name}.toml has a row of {min(unknown)!r}, which is none of its variants")
    data, seeds = small.get("data", values.get("data", {})), small.get("seeds", values["seeds"])
    protocol = values["protocol"] if scale == "paper" else " ".join((SMALL, small.get("about", ""))).strip()
    schedule = values["schedule"] if scale == "paper" else f"As given: {small.get('train', '').strip()}"
    about = (name, values["source"], protocol, schedule, data, values.get("files", {}))
    return Reproduction(*about, tuple(variants), tuple(seeds), **rows)


def _row(name: str, row: Mapping[str, Any]) -> Row:
    figures = {key: value for key, value in row.items() if isinstance(value, (int, float))}
    if not row.get("citation", "").strip():
        raise ValueError(f"{name}.toml has a row of {row.get('variant')!r} without a citation: say where it is from")
    return Row(row["variant"], row.get("of", row["variant"]), row["citation"], figures, row.get("scale", "paper"))


def commands(
    reproduction: Reproduction,
    out: Path,
    photos: str = BUILT_IN_PHOTOS,
    given: Mapping[str, str] = MappingProxyType({}),
) -> list[list[str]]:
    """Return the commands, in order, as words; `given` are the files that the user must give."""
    files = {key: str(out / f"{key}.h5") for key in reproduction.data}
    folders = {f"{key}_folder": str(Path(path).parent) for key, path in given.items()}
    known = {**files, "photos": photos, **given, **folders}
    found = [
        ["blurgen", "make", *_words(words, known), "--out", files[key]] for key, words in reproduction.data.items()
    ]
    for variant, seed, folder in runs(reproduction, out):
        known[f"{variant.name}_run"] = str(folder)
        train = _words(variant.train, known)
        found.append(["trainers", "run", variant.system, *train, "--seed", str(seed), "--out", str(folder)])
        measure = _words(variant.eval, known)
        found.append(["trainers", "eval", str(folder), *measure, "--out", str(folder / "measured")])
    return found


def _words(template: str, known: Mapping[str, str]) -> list[str]:
    return [word.format(**known) for word in shlex.split(template)]


def runs(reproduction: Reproduction, out: Path) -> list[tuple[Variant, int, Path]]:
    """Return each variant with each seed and its folder, seed after seed."""
    return [
        (variant, seed, out / f"{variant.name}-{seed}")
        for seed in reproduction.seeds
        for variant in reproduction.variants
    ]


def measured_here(reproduction: Reproduction, out: Path) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return variant -> row (output, input and others) -> for each seed below `out`, metric -> mean over images."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for variant, _, folder in runs(reproduction, out):
        path = folder / "measured" / "eval.json"
        if not path.is_file():
            continue
        for row, figures in json.loads(path.read_text(encoding="utf-8"))["rows"].items():
            values = {name: value["mean"] for name, value in figures.items() if value["mean"] is not None}
            found.setdefault(variant.name, {}).setdefault(row, []).append(values)
    return found


def table(reproduction: Reproduction, out: Path, scale: str) -> str:
    """Return a line for each row: reported, measured earlier, and measured below `out`."""
    here, known = measured_here(reproduction, out), (*reproduction.reported, *reproduction.measured)
    columns = list(dict.fromkeys(["psnr", "ssim", *(name for row in known for name in row.values)]))
    lines = [["", "", *columns, "from"]]
    for key in (INPUT, *(variant.name for variant in reproduction.variants)):
        for row in (row for row in known if row.variant == key):
            kind = "reported" if row in reproduction.reported else f"measured, {row.scale} scale"
            lines.append([row.of, kind, *(f"{row.values.get(name, '')}" for name in columns), row.citation])
        if key in here:
            seeds = f"{out}, seeds: {len(here[key][OUTPUT])} of {len(reproduction.seeds)}"
            lines.append([key, f"measured here, {scale} scale", *_means(here[key][OUTPUT], columns), seeds])
            lines += [
                [key, "its images untouched" if row == INPUT else row, *_means(figures, columns)]
                for row, figures in here[key].items()
                if row != OUTPUT
            ]
        elif key != INPUT:
            lines.append([key, f"measured here, {scale} scale", NOT_MEASURED])
    return _aligned(lines)


def _means(found: Sequence[Mapping[str, float]], columns: Sequence[str]) -> list[str]:
    return [_mean([values[name] for values in found if name in values]) for name in columns]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max((len(line[i]) for line in lines if i < len(line)), default=0) for i in range(max(map(len, lines)))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def run(calls: Iterable[Sequence[str]]) -> None:
    """Run commands of this project one after the other, as a user would; end where one fails."""
    for words in calls:
        print("$", shlex.join(words), flush=True)
        try:
            status = subprocess.run([sys.executable, "-m", *words], check=False).returncode
        except KeyboardInterrupt:
            # The command has heard of it, too, and has said what it left.
            print("stopped; the same reproduction continues", file=sys.stderr)
            sys.exit(130)
        if status:
            sys.exit(status)


def given_files(reproduction: Reproduction, assignments: Sequence[str]) -> dict[str, str]:
    """Return name -> path of what ``--file NAME=PATH`` gives.

    Raises
    ------
    ValueError
        A file that is wanted is not given, or one that is given is not wanted.
    """
    given = dict(assignment.partition("=")[::2] for assignment in assignments)
    for name in given.keys() - reproduction.files.keys():
        raise ValueError(
            f"{reproduction.name} wants no file {name!r}: it wants {', '.join(reproduction.files) or 'none'}"
        )
    for name in reproduction.files.keys() - given.keys():
        raise ValueError(f"{reproduction.name} wants {reproduction.files[name]}: give --file {name}=PATH")
    return given


def arguments_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("name", choices=names(), help="which one")
    add("--scale", choices=SCALES, default="paper", help="as the paper had it, or small enough for a CPU")
    add("--out", type=Path, help="folder of data, runs and results [default: runs/repro/NAME-SCALE]")
    add("--photos", default=BUILT_IN_PHOTOS, help="sharp images of the small scale: a folder, or the built-in leaves")
    add("--file", action="append", default=[], metavar="NAME=PATH", help="a file that the reproduction asks for")
    add("--dry-run", action="store_true", help="print the commands and what is known, run nothing")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Parse, run, print."""
    arguments = arguments_of(words)
    reproduction = read(arguments.name, arguments.scale)
    out = arguments.out or Path("runs") / "repro" / f"{arguments.name}-{arguments.scale}"
    try:
        missing = {name: f"{name.upper()}/FILE" for name in reproduction.files} if arguments.dry_run else {}
        assignments = [*(f"{name}={path}" for name, path in missing.items()), *arguments.file]
        calls = commands(reproduction, out, arguments.photos, given_files(reproduction, assignments))
    except ValueError as error:
        sys.exit(str(error))
    if arguments.dry_run:
        print("\n".join(shlex.join(words) for words in calls))
    else:
        out.mkdir(parents=True, exist_ok=True)
        run(calls)
    print(f"\n{reproduction.source}\n{reproduction.protocol}\nSchedule: {reproduction.schedule}\n")
    print(table(reproduction, out, arguments.scale))


if __name__ == "__main__":
    main()
