"""Character error rate: how much of a page Tesseract misreads."""

import math
import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

NO_PYTESSERACT = '--ocr needs pytesseract, which is not installed: run `pip install "blurgen[ocr]"`'
NO_PROGRAM = (
    "--ocr needs the program Tesseract, which is not installed or not in PATH: "
    "run `apt-get install tesseract-ocr`, or see https://tesseract-ocr.github.io/tessdoc/Installation.html"
)
# Of small letters, those of an x below 6 px, a third as many are misread then, and of large ones no more.
ENLARGED = 3
_WHITE = 255
_MARGIN_PX = 10
_THREADS = "OMP_THREAD_LIMIT"


def normalised(text: str) -> str:
    r"""Return text as it is compared: Unicode's NFKC, every run of white space one space, none at the ends.

    NFKC makes of ligatures their letters, and of wide or superior signs the usual ones. Upper and lower case and
    punctuation stay as they are, but for quotation marks and dashes, of which each kind has one sign.

    Examples
    --------
    >>> normalised(" of  ﬁne\n“Print” – ")
    'of fine "Print" -'
    """
    # NFKC itself takes an acute accent for a space with an accent, and makes dashes of other signs.
    return " ".join(unicodedata.normalize("NFKC", text.translate(_ONE_SIGN)).translate(_ONE_SIGN).split())


_ONE_SIGN = str.maketrans(dict.fromkeys("“”„«»", '"') | dict.fromkeys("‘’‚`´", "'") | dict.fromkeys("–—‐‑−", "-"))


def edit_distance(one: str, other: str) -> int:
    """Return the least number of characters to insert, delete or replace that makes one text of another.

    References
    ----------
    Wagner and Fischer, The string-to-string correction problem, JACM 1974.
    """
    target = np.array([ord(char) for char in other], np.int64)
    places = np.arange(len(other) + 1)
    distances = places.copy()
    for row, char in enumerate(one, 1):
        reached = np.empty_like(distances)
        reached[0] = row
        np.minimum(distances[1:] + 1, distances[:-1] + (target != ord(char)), out=reached[1:])
        # An insertion costs one for each place further right.
        distances = np.minimum.accumulate(reached - places) + places
    return int(distances[-1])


def character_error_rate(read: str, reference: str) -> float:
    """Return the edit distance of two texts, `normalised`, over the length of the reference; NaN where that is empty.

    It is above 1 where more is read than there is.
    """
    wanted = normalised(reference)
    return edit_distance(normalised(read), wanted) / len(wanted) if wanted else math.nan


def open_tesseract(languages: str) -> tuple[Callable[[np.ndarray], str], str]:
    """Return the function from an (H, W, 3) uint8 RGB page to the text that Tesseract reads in it, and its version.

    Parameters
    ----------
    languages : str
        Tesseract's names, such as ``eng`` or ``eng+ell``.

    Raises
    ------
    RuntimeError
        pytesseract, or the program, is not installed.
    ValueError
        A language is not installed.
    """
    try:
        import pytesseract
    except ModuleNotFoundError as error:
        raise RuntimeError(NO_PYTESSERACT) from error
    try:
        known = pytesseract.get_languages()
    except pytesseract.TesseractNotFoundError as error:
        raise RuntimeError(NO_PROGRAM) from error
    for language in languages.split("+"):
        if language not in known:
            raise ValueError(
                f"Tesseract has no language {language!r}, it has {', '.join(known)}: "
                f"run `apt-get install tesseract-ocr-{language.replace('_', '-')}`, or name another one with --ocr-lang"
            )

    def read(image: np.ndarray) -> str:
        with _one_thread():
            return pytesseract.image_to_string(prepared(image), lang=languages, config="--psm 3 --dpi 300")

    return read, f"Tesseract {pytesseract.get_tesseract_version()}, {languages}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let programs started here compute in one thread: those of Tesseract wait for each other half of the time."""
    given = os.environ.get(_THREADS)
    os.environ.setdefault(_THREADS, "1")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_THREADS]


def prepared(image: np.ndarray) -> np.ndarray:
    """Return an (H, W, 3) uint8 page enlarged `ENLARGED` times, with a white margin, as Tesseract reads it best."""
    height, width = image.shape[:2]
    larger = cv2.resize(image, (width * ENLARGED, height * ENLARGED), interpolation=cv2.INTER_CUBIC)
    margin = [_MARGIN_PX * ENLARGED] * 4
    return cv2.copyMakeBorder(larger, *margin, cv2.BORDER_CONSTANT, value=(_WHITE, _WHITE, _WHITE))
