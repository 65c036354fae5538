"""What the bytes of an image file say before a pixel is decoded: format and size.

Formats are told by their first bytes, never by a name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from blurgen.sources import BadImage

JPEG_END, JPEG_SCAN, _JPEG_TABLES = 0xD9, 0xDA, 0xC4
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_STANDALONE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# With these a PNG needs more than its rows decoded: transparency, orientation, several frames, XMP (orientation again).
_PNG_EXTRAS = frozenset({b"tRNS", b"eXIf", b"acTL", b"iTXt"})
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_FORMATS = (
    (b"\xff\xd8\xff", "JPEG"),
    (_PNG_SIGNATURE, "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    *((order, "TIFF") for order in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P%d" % digit, "PPM") for digit in range(1, 7)),
    (b"\0\0\0\x0cjP  ", "JPEG2000"),
    (b"\xffO\xffQ", "JPEG2000"),
)


@dataclass(frozen=True, slots=True)
class Header:
    """Format and stored size of an encoded image.

    Parameters
    ----------
    kind : str
        ``"JPEG"``, ``"PNG"``, ``"WEBP"``, ``"TIFF"`` and so on, by Pillow's names.
    width, height : int
        Size as stored, in px, before the EXIF orientation; 0 where only Pillow can tell.
    channels : int
        1 (gray) or 3 (RGB) where `plain` is set.
    plain : bool
        8-bit gray or RGB rows and nothing else, which the fast decoder reads as they are.
    deep : bool
        16 bits a channel, in a PNG.
    extras : bool
        There may be an orientation or a colour profile to apply.
    progressive : bool
        The decoder holds all coefficients of a JPEG at once.
    data_start : int
        Where the compressed data of a JPEG's first scan begin.
    scan : bytes
        The header of that scan.
    one_scan : bool
        A JPEG whose only scan holds all its channels.
    zeros_possible : bool
        Long runs of zero bytes can occur in the compressed data of a JPEG.
    """

    kind: str
    width: int = 0
    height: int = 0
    channels: int = 0
    plain: bool = False
    deep: bool = False
    extras: bool = False
    progressive: bool = False
    data_start: int = 0
    scan: bytes = b""
    one_scan: bool = False
    zeros_possible: bool = True


def read_header(data: bytes) -> Header:
    """Return the `Header` of an encoded image (bytes, or anything that slices to bytes, such as a memory map).

    Raises
    ------
    BadImage
        ``"empty"``, ``"not-an-image"``, ``"unsupported"`` (HEIC), ``"truncated"``, ``"corrupt"``.
    """
    if not len(data):
        raise BadImage("empty", "the file is empty")
    kind = _kind(bytes(data[:32]))
    if kind == "JPEG":
        return _jpeg_header(data)
    if kind == "PNG":
        return _png_header(data)
    if kind == "WEBP":
        return _webp_header(data)
    return Header(kind)


def _kind(start: bytes) -> str:
    for magic, kind in _FORMATS:
        if start.startswith(magic):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp":
        if b"avif" in start or b"avis" in start:
            return "AVIF"
        if start[8:12] in _HEIF_BRANDS:
            raise BadImage("unsupported", "HEIC is not decoded here; convert the image to JPEG or PNG")
    raise BadImage("not-an-image", f"the content must be an image, but it starts with {start[:12]!r}")


def _jpeg_header(data: bytes) -> Header:
    frame, frame_size, extras, zeros_possible, at = None, b"", False, True, 2
    while True:
        marker, segment, at = _jpeg_segment(data, at)
        if marker in _JPEG_FRAMES:
            frame, frame_size = marker, segment
        elif marker in (0xE1, 0xE2, 0xEE):
            extras |= marker == 0xE1 or segment.startswith(b"ICC_PROFILE")
        elif marker == _JPEG_TABLES:
            zeros_possible = _first_luminance_code_ends_block(segment, zeros_possible)
        elif marker == JPEG_SCAN:
            break
        elif marker == JPEG_END:
            raise BadImage("corrupt", "the JPEG ends before any image data")
    if frame is None or len(frame_size) < 6:
        raise BadImage("corrupt", "the JPEG has no valid frame header")
    bits, channels = frame_size[0], frame_size[5]
    height, width = int.from_bytes(frame_size[1:3]), int.from_bytes(frame_size[3:5])
    if not width or not height:
        raise BadImage("corrupt", f"a JPEG must have a size above zero, got {width} x {height}")
    return Header(
        "JPEG",
        width,
        height,
        channels,
        plain=bits == 8 and channels in (1, 3) and frame in (0xC0, 0xC1, 0xC2),
        extras=extras,
        progressive=frame == 0xC2,
        data_start=at,
        scan=segment,
        one_scan=frame in (0xC0, 0xC1) and bool(segment) and segment[0] == channels,
        zeros_possible=zeros_possible,
    )


def _jpeg_segment(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return the next marker, the content of its segment, and the position behind it."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            raise BadImage("truncated", "the JPEG stops within its header")
        marker = data[at + 1]
        if marker in (0x00, 0xFF) or marker in _JPEG_STANDALONE:
            at += 1 + (marker != 0xFF)
            continue
        if marker == JPEG_END:
            return marker, b"", at + 2
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if end > len(data):
            raise BadImage("truncated", "the JPEG stops within its header")
        return marker, bytes(data[at + 4 : end]), end


def _first_luminance_code_ends_block(tables: bytes, otherwise: bool) -> bool:
    """Whether the all-zero Huffman code of AC table 0 means "end of block", which makes a flat area all zero bits."""
    at = 0
    while at + 18 <= len(tables):
        if tables[at] == 0x10:
            otherwise = tables[at + 17] == 0
        at += 17 + sum(tables[at + 1 : at + 17])
    return otherwise


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the content of each chunk of a PNG."""
    at, name = len(_PNG_SIGNATURE), b""
    while name != b"IEND":
        name, start = bytes(data[at + 4 : at + 8]), at + 8
        end = start + int.from_bytes(data[at : at + 4])
        at = end + 4
        if at > len(data):
            raise BadImage("truncated", "the PNG stops before its end chunk")
        yield name, start, end


def _png_header(data: bytes) -> Header:
    chunks = {name for name, _, _ in png_chunks(data)}
    if data[8:16] != b"\0\0\0\x0dIHDR":
        raise BadImage("corrupt", "the PNG does not begin with its header chunk")
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    depth, colour = data[24], data[25]
    if not width or not height:
        raise BadImage("corrupt", f"a PNG must have a size above zero, got {width} x {height}")
    if b"IDAT" not in chunks:
        raise BadImage("corrupt", "the PNG has no image data")
    return Header(
        "PNG",
        width,
        height,
        channels=3 if colour == 2 else 1,
        plain=depth == 8 and colour in (0, 2) and not chunks & _PNG_EXTRAS,
        deep=depth == 16,
        extras=b"iCCP" in chunks,
    )


def _webp_header(data: bytes) -> Header:
    """Return the header of a WebP file, whose decoder allocates the whole canvas as soon as it is opened."""
    start = bytes(data[:30]).ljust(30, b"\0")
    if len(data) < 8 + int.from_bytes(start[4:8], "little"):
        raise BadImage("truncated", "the WebP file is shorter than it says")
    if start[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(start[at : at + 3], "little") for at in (24, 27))
    elif start[12:16] == b"VP8L":
        packed = int.from_bytes(start[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(start[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return Header("WEBP", width, height)
