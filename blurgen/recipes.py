"""Recipes: what is known of a dataset, as data in ``datasets/*.toml``, and how a source is opened by name or place.

A recipe states title, homepage, licence, citation, expected counts and how to obtain the data, and one or more layouts
that the folder may have. A layout says where the sharp images lie per split, where the blurred ones lie if there are
any, and which images belong together. `Recipe` and `Layout` describe every key; the TOML files show them in use.
"""

import dataclasses
import glob
import os
import pkgutil
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from blurgen.options import coerce, nearest, read_toml
from blurgen.sources import READERS, Source
from blurgen.sources.keys import MAX_AUTHOR_BYTES, MAX_LICENCE_BYTES, MAX_SPLIT_BYTES, check_text
from blurgen.sources.places import OWN, configured, open_place, refuse

BUILT_IN = ("text", "leaves")
Pairs = tuple[tuple[str, str], ...]
Globs = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Layout:
    """One way in which a dataset lies on the disk.

    Parameters
    ----------
    name : str
        Chosen by ``--set source.layout=NAME``, else the first layout that finds an image is taken.
    splits : table of split -> globs
        The sharp images; the split ``""`` stands for data without splits.
    blurred : table of split -> globs
        The blurred images, for ``--real``.
    pair : str
        Regular expression of what tells a blurred path from its sharp one: cut out of both, they are equal.
    group : str
        Regular expression whose groups in a path name the scene, video or person.
    group_file, split_lists, split_table, split_values
        Text files beside the images that name groups and splits, as in `blurgen.sources.folder.FolderSource`.
    labels : table of pattern -> paths
        Rules that lead from the path of an image to that of its label map, for ``--labels``: a regular expression of
        the whole path, and paths with what its groups matched, of which the first that exists is taken.
    counts : table of split -> number
        How many sharp images the complete data have.
    needs_both : bool
        Without ``--real``, take this layout only where there are blurred images, too.
    """

    name: str
    splits: Globs = ()
    blurred: Globs = ()
    pair: str = ""
    group: str = ""
    group_file: str = ""
    split_lists: Pairs = ()
    split_table: str = ""
    split_values: Pairs = ()
    labels: Globs = ()
    counts: tuple[tuple[str, int], ...] = ()
    needs_both: bool = False

    @property
    def split_names(self) -> tuple[str, ...]:
        """All splits that this layout can tell apart."""
        names = [split for split, _ in (*self.splits, *self.blurred, *self.split_lists)]
        names += [split for _, split in self.split_values]
        return tuple(sorted({name for name in names if name}))


@dataclass(frozen=True)
class Recipe:
    """What is known of a dataset.

    Parameters
    ----------
    name : str
        The name of the TOML file without its suffix.
    title, homepage, author, citation : str
        Whose data it is, and how to give credit; the citation is BibTeX or a reference in words.
    licence : str
        The terms in a few words; `spdx` is the identifier on spdx.org, for a licence that has one.
    obtain : str
        One or two sentences on where the data come from and how to unpack them.
    layout : list of Layout
        Tried in this order.
    """

    name: str
    title: str
    licence: str
    obtain: str
    layout: tuple[Layout, ...]
    homepage: str = ""
    author: str = ""
    citation: str = ""
    spdx: str = ""

    @property
    def terms(self) -> str:
        """The SPDX identifier, or the terms in words where there is none."""
        return self.spdx or self.licence


class SourceRow(NamedTuple):
    """One line of ``blurgen sources``; `path`, `count` and `expected` are None for a source that needs no data.

    `count` sharp images were found of `expected` that the complete data have, 0 where that is not known.
    """

    name: str
    title: str
    path: str | None
    count: int | None
    licence: str
    expected: int | None = None


def recipe_paths() -> dict[str, Path]:
    """Return the recipe files by name: those of the installed package, else those of the checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "datasets", package.parent / "datasets"):
        found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
        if found:
            return found
    raise FileNotFoundError(f"the recipes must lie in {package / 'datasets'}; install blurgen again")


def load_recipe(source: str | Path) -> Recipe:
    """Return the recipe with this name, or from this TOML file.

    Raises
    ------
    ValueError
        An unknown name, an unknown or missing key, or a value of the wrong type.

    Examples
    --------
    >>> load_recipe("gopro").spdx
    'CC-BY-4.0'
    """
    path = source if isinstance(source, Path) else recipe_paths().get(source)
    if path is None:
        raise ValueError(f"there is no dataset {source!r}: {nearest(str(source), _datasets())}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no recipe file {path}")
    table = read_toml(path, "the recipe ")
    layouts = table.pop("layout", None)
    if not isinstance(layouts, list) or not all(isinstance(layout, dict) for layout in layouts):
        raise ValueError(f"{path} must have at least one table [[layout]]")
    built = tuple(_checked(Layout, layout, f"{path}, [[layout]]") for layout in layouts)
    recipe = _checked(Recipe, {"name": path.stem, **table}, str(path), layout=built)
    _check_recipe(recipe, path)
    return recipe


def open_source(
    src: str,
    root: str | Path | None = None,
    splits: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    real: bool = False,
    seed: int = 0,
) -> Source:
    """Return the source that a user names.

    Parameters
    ----------
    src : str
        A built-in source (``"text"``, ``"leaves"``), the name of a recipe, a recipe's TOML file, a folder, a glob, an
        image, a text file with a path a line, or a .zip or .tar file. ``"folder"``, which shards call images of one's
        own, stands for whichever of these places `root` names.
    root : path, optional
        Where the dataset of a recipe lies, else ``$BLURGEN_DATA/NAME``, else ``./data/NAME``; for a text file, what its
        paths are relative to, else its own folder.
    splits : iterable of str
        Only these splits; none means all.
    settings : mapping
        Fields of the reader, as in ``--set source.fonts=DIR``, and ``layout`` for the layout of a recipe.
    real : bool
        Existing blurred and sharp images, in pairs where both exist.
    seed : int
        Seed of a built-in source.

    Raises
    ------
    ValueError
        A name, split or setting that is not known, with the nearest one that is.
    FileNotFoundError
        A dataset that is not there; says where to get it, its licence, and the layout that is expected.
    """
    splits, settings = tuple(splits), dict(settings or {})
    if src == OWN and root is not None:
        return _open_place(str(root), None, splits, settings, real)
    if src in BUILT_IN:
        refuse({"--root": root, "--split": splits, "--real": real}, f"--src {src} draws its own sharp images")
        return configured(src, settings, {"seed": seed})
    own_recipe = src.endswith(".toml") and not os.path.isdir(src)
    if not own_recipe and src not in _datasets():
        return _open_place(src, root, splits, settings, real)
    recipe = load_recipe(Path(src) if own_recipe else src)
    return _open_recipe(recipe, _find_root(recipe, root), splits, settings, real)


def list_sources(root: str | Path | None = None) -> list[SourceRow]:
    """Return a row for every built-in source and every recipe, with the number of sharp images found.

    Parameters
    ----------
    root : path, optional
        A folder that holds the datasets under their names, tried before ``$BLURGEN_DATA`` and ``./data``.
    """
    rows = []
    for name in BUILT_IN:
        reader = pkgutil.resolve_name(READERS[name])
        title = (reader.__doc__ or name).strip().partition("\n")[0].rstrip(".")
        rows.append(SourceRow(name, title, None, None, reader.licence))
    for name in _datasets():
        recipe = load_recipe(name)
        place = next((place for place in _places(name, root and Path(root) / name) if place.is_dir()), None)
        layout = place and _layout_found(recipe, str(place), recipe.layout, real=False)
        count = len(_folder(recipe, layout, str(place), layout.splits).entries()) if layout else 0
        expected = sum(number for _, number in (layout or recipe.layout[0]).counts)
        rows.append(SourceRow(name, recipe.title, str(place) if layout else None, count, recipe.terms, expected))
    return rows


def _datasets() -> list[str]:
    """Return the names of the recipes that describe a dataset, rather than a folder of the user's own."""
    return [name for name in recipe_paths() if name != OWN]


def _checked(kind: type, table: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Return a dataclass built from a TOML table; unknown, missing and wrongly typed keys are errors."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = dict(given)
    for key, value in table.items():
        if key not in fields:
            raise ValueError(f"{where}: there is no key {key!r}, {nearest(key, fields)}")
        plain = tuple(value.items()) if isinstance(value, dict) else value
        values[key] = coerce(plain, hints[key], f"{where}: {key}")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    if missing:
        raise ValueError(f"{where}: the key {missing[0]!r} is missing")
    return kind(**values)


def _check_recipe(recipe: Recipe, path: Path) -> None:
    names = [layout.name for layout in recipe.layout]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path}: layouts must have names of their own, got {', '.join(names) or 'none'}")
    if recipe.homepage and not recipe.homepage.startswith(("http://", "https://")):
        raise ValueError(f"{path}: homepage must be an address that starts with https://, got {recipe.homepage!r}")
    check_text(f"{path}: the licence", recipe.terms, MAX_LICENCE_BYTES)
    check_text(f"{path}: the author", recipe.author, MAX_AUTHOR_BYTES)
    for layout in recipe.layout:
        for split in layout.split_names:
            check_text(f"{path}: a split", split, MAX_SPLIT_BYTES)
        if not layout.splits and not layout.blurred:
            raise ValueError(f"{path}: the layout {layout.name!r} must have splits, blurred, or both")
        for split, _ in layout.counts:
            known = (*layout.split_names, "")
            if split not in known:
                raise ValueError(f"{path}: counts has a split {split!r} that no glob has: {nearest(split, known)}")
        _check_patterns(layout, path)


def _check_patterns(layout: Layout, path: Path) -> None:
    patterns = [("pair", layout.pair), ("group", layout.group), *(("labels", rule) for rule, _ in layout.labels)]
    for key, pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{path}: {key} must be a regular expression: {error}") from error
    for pattern, name in ((pattern, name) for pattern, names in layout.labels for name in names):
        try:
            re.sub(pattern, name, "")
        except (re.error, IndexError) as error:
            raise ValueError(
                f"{path}: labels has a path {name!r} that its rule {pattern!r} cannot fill: {error}"
            ) from error


def _places(name: str, root: str | Path | None) -> list[Path]:
    """Return where a dataset may lie, in the order of trial."""
    shared = os.environ.get("BLURGEN_DATA")
    places = [Path(root)] if root is not None else []
    return [*places, *([Path(shared) / name] if shared else []), Path("data") / name]


def _find_root(recipe: Recipe, root: str | Path | None) -> str:
    places = _places(recipe.name, root)[: 1 if root is not None else None]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise FileNotFoundError(_how_to_get(recipe, f"is not in {' nor in '.join(map(str, places))}"))
    return str(found)


def _how_to_get(recipe: Recipe, problem: str) -> str:
    layout = recipe.layout[0]
    globs = [patterns[0] for _, patterns in (*layout.splits, *layout.blurred)]
    where = f" at {recipe.homepage}" if recipe.homepage else ""
    obtain = recipe.obtain[:1].lower() + recipe.obtain[1:].rstrip(".")
    return (
        f"the dataset {recipe.name!r} {problem}; get {recipe.title}{where} (licence: {recipe.licence}): {obtain}. "
        f"Its folder, --root DIR or $BLURGEN_DATA/{recipe.name}, must hold {', '.join(globs[:4])}"
    )


def _open_recipe(recipe: Recipe, root: str, splits: Sequence[str], settings: dict[str, Any], real: bool) -> Source:
    wanted = settings.pop("layout", None)
    names = [layout.name for layout in recipe.layout]
    if wanted is not None and wanted not in names:
        raise ValueError(f"{recipe.name} has no layout {wanted!r}: {nearest(str(wanted), names)}")
    layouts = [layout for layout in recipe.layout if wanted in (None, layout.name)]
    if real and not any(layout.blurred for layout in layouts):
        raise ValueError(f"--real needs blurred photographs, but {recipe.name!r} holds sharp images only")
    layout = _layout_found(recipe, root, layouts, real)
    if layout is None and recipe.name == OWN:
        raise FileNotFoundError(f"there is no image in {root}: give a folder, a glob or an archive that holds some")
    if layout is None:
        raise FileNotFoundError(_how_to_get(recipe, f"is not complete: {root} holds no image where it should"))
    for split in splits:
        if split not in layout.split_names:
            known = nearest(split, layout.split_names) if layout.split_names else "its images have none"
            raise ValueError(f"{recipe.name} has no split {split!r}: {known}")
    sharp, blurred = (_folder(recipe, layout, root, globs, splits) for globs in (layout.splits, layout.blurred))
    if not real:
        return configured("folder", settings, vars(sharp))
    shown = {"name": recipe.name, "licence": recipe.terms, "author": recipe.author}
    sides = {"sharp": sharp if layout.splits else None, "blurred": blurred}
    return configured("pairs", settings, {**sides, **shown, "pair": layout.pair})


def _layout_found(recipe: Recipe, root: str, layouts: Iterable[Layout], real: bool) -> Layout | None:
    """Return the first layout of which there is an image."""

    def there(layout: Layout, globs: Globs) -> bool:
        return bool(globs) and _folder(recipe, layout, root, globs).has_images()

    for layout in layouts:
        sides = layout.splits if not real else layout.blurred and layout.splits + layout.blurred
        if there(layout, sides) and (real or not layout.needs_both or there(layout, layout.blurred)):
            return layout
    return None


def _folder(recipe: Recipe, layout: Layout, root: str, globs: Globs, splits: Sequence[str] = ()) -> Any:
    """Return the `FolderSource` of one side of a layout."""
    rules = ("group", "group_file", "split_lists", "split_table", "split_values", "labels")
    return pkgutil.resolve_name(READERS["folder"])(
        root=root,
        globs=tuple((split, pattern) for split, patterns in globs for pattern in patterns),
        splits=tuple(splits),
        name=recipe.name,
        licence=recipe.terms,
        author=recipe.author,
        **{rule: getattr(layout, rule) for rule in rules},
    )


def _open_place(
    src: str, root: str | Path | None, splits: Sequence[str], settings: dict[str, Any], real: bool
) -> Source:
    """Return the source for images of the user's own, wherever they lie."""
    if os.path.isdir(src):
        refuse({"--root": root}, f"{src} says where the images are")
        return _open_recipe(load_recipe(OWN), src, splits, settings, real)
    if os.path.exists(src) or glob.has_magic(src):
        return open_place(src, root, splits, settings, real)
    if src == OWN:
        raise FileNotFoundError(f"--src {OWN} means images of your own; say where they lie with --root")
    if os.path.basename(src) != src or os.path.splitext(src)[1]:
        raise FileNotFoundError(f"--src {src} does not exist: give a folder, a glob, a list, an archive or a dataset")
    known = nearest(src, (*BUILT_IN, *_datasets()))
    raise ValueError(f"--src must be a dataset, a folder, a glob, a list or an archive, got {src!r}: {known}")
