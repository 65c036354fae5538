"""Fonts: families of files, and glyphs as coverage at sub-pixel positions, cached per process."""

import math
import string
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from blurgen.sources.pages.writing import LATIN, script_named, written

_OVERSAMPLING = 4  # FreeType draws this much larger, which undoes its hinting and allows positions between pixels
_DESIGN_PX = 1000  # advances are measured at this size, where rounding to whole pixels does not matter
_FIGURES = string.digits + ".,"
_PLAIN = {"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "×": "x", "€": "EUR ", "£": "GBP "}
# Computer Modern keeps TeX's own encoding, in which these places hold what is given here, and has ligatures.
_TEX = {"“": "\\", "”": '"', "‘": "`", "’": "'", "–": "{", "—": "|", "ffi": "\xb1", "ffl": "\xb2"}
_TEX |= {"ff": "\xae", "fi": "\xaf", "fl": "\xb0", "ß": "\xbc", "æ": "\xbd", "ø": "\xbf"}
_TEX_HAS = frozenset(string.ascii_letters + string.digits + " !#$%&'()*+,-./:;=?@[]")
_TEX_TEXT_FACES = ("cmr10", "cmb10", "cmti10", "cmss10")


@dataclass(frozen=True)
class Family:
    """The files of one family: regular, bold, italic and bold italic (the same file again where one is missing).

    `script` is what is written with it.
    """

    name: str
    regular: str
    bold: str
    italic: str
    bold_italic: str
    fixed_pitch: bool = False
    script: str = LATIN

    @property
    def files(self) -> tuple[str, str, str, str]:
        """The four files."""
        return self.regular, self.bold, self.italic, self.bold_italic


def required(script: str) -> str:
    """Return what a font must hold to write in a script."""
    return (string.ascii_letters if script == LATIN else script_named(script).letters) + _FIGURES


def _missing(face: "Face", script: str) -> str | None:
    return next((char for char in required(script) if not face.has(char)), None)


@cache
def families_of(script: str) -> tuple[Family, ...]:
    """Return those of the families that matplotlib brings along that hold the letters of a script.

    Raises
    ------
    ValueError
        There are none; the message names a letter that they lack.
    """
    families = bundled_families()
    if script == LATIN:
        return families
    missing = [next(filter(None, (_missing(Face.open(path), script) for path in one.files)), None) for one in families]
    if all(missing):
        raise ValueError(
            f"the fonts of matplotlib lack letters of the script {script}, such as {missing[0]!r}: "
            "name a folder of fonts that hold them with --set source.fonts=DIR"
        )
    return tuple(replace(one, script=script) for one, lacks in zip(families, missing, strict=True) if not lacks)


@cache
def bundled_families() -> tuple[Family, ...]:
    """Return the families that matplotlib brings along: the same files on every machine."""
    import matplotlib

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    files = (
        ("DejaVu Sans", "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
        ("DejaVu Serif", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
        ("STIX", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
        ("Computer Modern", "cmr10", "cmb10", "cmti10", "cmb10"),
        ("Computer Modern Sans", "cmss10", "cmss10", "cmss10", "cmss10"),
        ("Computer Modern Typewriter", "cmtt10", "cmtt10", "cmtt10", "cmtt10"),
        (
            "DejaVu Sans Mono",
            "DejaVuSansMono",
            "DejaVuSansMono-Bold",
            "DejaVuSansMono-Oblique",
            "DejaVuSansMono-BoldOblique",
        ),
    )
    return tuple(
        Family(name, *(str(folder / f"{stem}.ttf") for stem in stems), name.endswith(("Mono", "Typewriter")))
        for name, *stems in files
    )


@lru_cache(maxsize=4)
def families_in(folder: str, script: str = LATIN) -> tuple[Family, ...]:
    """Return the families of the .ttf and .otf files anywhere below a folder that hold the letters of a script.

    Raises
    ------
    ValueError
        If the folder does not exist, holds no such file with the letters, or holds one that is not a font.
    """
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".ttf", ".otf"))
    by_name: dict[str, dict[str, str]] = {}
    lacking = ""
    for path in paths:
        missing = _missing(_open_face(str(path)), script)
        if missing:
            lacking = lacking or f": {path.name} lacks {missing!r}"
        else:
            family, style = ImageFont.truetype(str(path), 20).getname()
            by_name.setdefault(family or path.stem, {})[(style or "Regular").lower()] = str(path)
    if not by_name:
        letters = "Latin letters" if script == LATIN else f"the letters of the script {script}"
        raise ValueError(f"fonts must be a folder with .ttf or .otf files that hold {letters}, got {folder}{lacking}")
    return tuple(_family(name, styles, script) for name, styles in sorted(by_name.items()))


def _open_face(path: str) -> "Face":
    try:
        return Face.open(path)
    except OSError as error:
        raise ValueError(
            f"every .ttf and .otf file in the folder of fonts must be a font, {path} is not: {error}"
        ) from error


def _family(name: str, styles: dict[str, str], script: str) -> Family:
    def nearest(bold: bool, slanted: bool) -> str:
        def distance(style: str) -> tuple[bool, bool, int]:
            return ("bold" in style) != bold, ("italic" in style or "oblique" in style) != slanted, len(style)

        return styles[min(sorted(styles), key=distance)]

    regular = nearest(False, False)
    advances = [Face.open(regular).advance(char) for char in ("iW" if script == LATIN else required(script))]
    fixed_pitch = math.isclose(min(advances), max(advances))
    return Family(name, regular, nearest(True, False), nearest(False, True), nearest(True, True), fixed_pitch, script)


class Face:
    """One font file: what characters it has and how wide they are, in em; texts are set in a script."""

    def __init__(self, path: str, script: str = LATIN):
        self.path, self.script = path, script
        self._design = ImageFont.truetype(path, _DESIGN_PX, layout_engine=ImageFont.Layout.BASIC)
        self._small = ImageFont.truetype(path, 24, layout_engine=ImageFont.Layout.BASIC)
        self._tex = Path(path).stem in _TEX_TEXT_FACES
        self._advances: dict[str, float] = {}
        self._has: dict[str, bool] = {}
        self._spelled: dict[str, str] = {}
        middle = "x" if script == LATIN else script_named(script).middle
        top = self._design.getbbox(middle, anchor="ls")[1]
        self.x_height = -top / _DESIGN_PX

    @classmethod
    @lru_cache(maxsize=256)
    def open(cls, path: str, script: str = LATIN) -> "Face":
        """Return the face of a file, the same object on every call.

        Raises
        ------
        OSError
            If FreeType cannot read the file.
        """
        return cls(path, script)

    def has(self, char: str) -> bool:
        """Return whether the font draws the character as something else than its sign for missing ones."""
        if char not in self._has:
            missing, drawn = (self._small.getmask(c) for c in ("\uffff", char))
            self._has[char] = char == " " or (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))
        return self._has[char]

    def advance(self, char: str) -> float:
        """Return by how much a character moves the pen, in em."""
        width = self._advances.get(char)
        if width is None:
            width = self._advances[char] = self._design.getlength(char) / _DESIGN_PX
        return width

    def spelled(self, text: str) -> str:
        """Return the text in characters of this font: its own places and ligatures, plain signs for missing ones."""
        known = self._spelled.get(text)
        if known is None:
            if len(self._spelled) >= 4096:
                self._spelled.clear()
            known = self._spelled[text] = self._spell(text)
        return known

    def shown(self, text: str) -> str:
        """Return the text as it is to be read on paper: in its script, plain signs for those that the font lacks."""
        text = written(self.script, text)
        if self._tex:
            return "".join(char if char in _TEX_HAS or char in _TEX else _PLAIN.get(char, "") for char in text)
        return "".join(char if self.has(char) else _PLAIN.get(char, "") for char in text)

    def _spell(self, text: str) -> str:
        text = self.shown(text)
        if self._tex:
            for written, place in _TEX.items():
                text = text.replace(written, place)
        return text


class Font:
    """A face at one size and width: places text, and rasterises each glyph once per sub-pixel position.

    Parameters
    ----------
    path : str
        The font file.
    size_px : float
        Pixels per em.
    stretch : float
        Horizontal scale: below 1 for condensed, above for extended setting.
    script : str
        What texts are set in.
    """

    def __init__(self, path: str, size_px: float, stretch: float = 1.0, script: str = LATIN):
        self.size_px = size_px
        self.face = Face.open(path, script)
        self.x_height_px = self.face.x_height * size_px
        self._em_px = size_px * stretch
        self._stretch = stretch
        self._drawn = ImageFont.truetype(path, size_px * _OVERSAMPLING, layout_engine=ImageFont.Layout.BASIC)
        self._cells: dict[tuple[str, int], int] = {}
        self._coverage = bytearray()
        self._boxes: list[tuple[int, int, int, int, int]] = []

    @classmethod
    @lru_cache(maxsize=48)
    def open(cls, path: str, size_px: float, stretch: float = 1.0, script: str = LATIN) -> "Font":
        """Return the font, the same object while it is in use."""
        return cls(path, size_px, stretch, script)

    def width_px(self, text: str) -> float:
        """Return how far setting the text moves the pen, in pixels."""
        advance = self.face.advance
        return sum(advance(char) for char in self.face.spelled(text)) * self._em_px

    def place(self, text: str, x: float) -> Iterator[tuple[int, int]]:
        """Yield (glyph cell, whole pixel) of each glyph of the text whose pen starts at x."""
        em_px, advance, cells = self._em_px, self.face.advance, self._cells
        for char in self.face.spelled(text):
            if char != " ":
                column, phase = divmod(round(x * _OVERSAMPLING), _OVERSAMPLING)
                cell = cells.get((char, phase))
                yield self._rasterise(char, phase) if cell is None else cell, column
            x += advance(char) * em_px

    def glyphs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all cells so far: coverage (bytes,) uint8 and boxes (cells, 5) int64 of (offset, h, w, top, left)."""
        return np.frombuffer(bytes(self._coverage), np.uint8), np.array(self._boxes, np.int64)

    def _rasterise(self, char: str, phase: int) -> int:
        x0, y0, x1, y1 = self._drawn.getbbox(char, anchor="ls")
        x0, x1 = math.floor(x0 * self._stretch) + phase, math.ceil(x1 * self._stretch) + phase
        left, top = x0 // _OVERSAMPLING, y0 // _OVERSAMPLING
        w, h = -(-x1 // _OVERSAMPLING) - left + 1, -(-y1 // _OVERSAMPLING) - top + 1
        glyph = self._outline(char, phase - left * _OVERSAMPLING, -top * _OVERSAMPLING, w, h)
        self._boxes.append((len(self._coverage), h, w, top, left))
        self._coverage += glyph.tobytes()
        self._cells[char, phase] = len(self._boxes) - 1
        return len(self._boxes) - 1

    def _outline(self, char: str, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Return a glyph with its origin at (x, y) of the oversampled raster as coverage (h, w) uint8."""
        raster = Image.new("L", (w * _OVERSAMPLING, h * _OVERSAMPLING))
        if self._stretch == 1:
            ImageDraw.Draw(raster).text((x, y), char, fill=255, font=self._drawn, anchor="ls")
        else:
            natural = Image.new("L", (math.ceil(raster.width / self._stretch) + 1, raster.height))
            ImageDraw.Draw(natural).text((round(x / self._stretch), y), char, fill=255, font=self._drawn, anchor="ls")
            raster = natural.resize(
                raster.size, Image.Resampling.BILINEAR, (0, 0, raster.width / self._stretch, raster.height)
            )
        return np.asarray(raster.reduce(_OVERSAMPLING))
