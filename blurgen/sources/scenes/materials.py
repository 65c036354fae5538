"""What the things of a scene are made of: their colours, shapes, surfaces and usual sizes."""

from dataclasses import dataclass

# The numbers by which compiled code knows shapes and surfaces.
ELLIPSE, BOX, POLYGON, BLOB, LENS, TWIG = range(6)
PLAIN, SMOOTH, ROUGH, STRIPES, BRICKS = range(5)


@dataclass(frozen=True)
class Material:
    """A kind of thing.

    Attributes
    ----------
    colours : tuple of (int, int, int)
        sRGB, 0 to 255, of its parts in full light.
    shapes : tuple of int
        Outlines, each as likely.
    surfaces : tuple of int
        Textures, each as likely.
    contrast : float
        Of the texture, 0 to 1.
    roundness : float
        How much the side away from the light darkens, 0 to 1.
    size_px, spread : float
        Radius at which the material is most likely, and how far (as a factor) from it it is still common.
    """

    colours: tuple[tuple[int, int, int], ...]
    shapes: tuple[int, ...]
    surfaces: tuple[int, ...]
    contrast: float
    roundness: float
    size_px: float
    spread: float


MATERIALS = {
    "foliage": Material(
        ((58, 92, 38), (94, 122, 48), (36, 64, 34), (128, 146, 70)), (LENS, LENS, BLOB), (PLAIN, SMOOTH), 0.3, 0.5, 5, 4
    ),
    "meadow": Material(((104, 124, 58), (140, 146, 78), (78, 100, 46)), (LENS, TWIG), (PLAIN, SMOOTH), 0.3, 0.3, 4, 5),
    "autumn": Material(
        ((168, 92, 30), (196, 140, 44), (120, 56, 26), (146, 112, 60)), (LENS, BLOB), (SMOOTH,), 0.35, 0.4, 5, 4
    ),
    "wood": Material(
        ((92, 70, 52), (122, 98, 74), (66, 52, 42)), (TWIG, TWIG, BOX), (STRIPES, ROUGH), 0.35, 0.6, 40, 5
    ),
    "stone": Material(
        ((128, 124, 118), (96, 94, 92), (160, 154, 142)), (BLOB, POLYGON), (ROUGH, SMOOTH), 0.45, 0.6, 14, 6
    ),
    "brick": Material(((142, 78, 58), (120, 66, 52), (160, 104, 80)), (BOX,), (BRICKS, ROUGH), 0.5, 0.1, 70, 4),
    "plaster": Material(
        ((206, 196, 176), (184, 172, 150), (222, 214, 200)), (BOX, POLYGON), (SMOOTH, PLAIN), 0.2, 0.2, 80, 5
    ),
    "metal": Material(
        ((70, 84, 98), (120, 136, 150), (40, 48, 58)), (BOX, ELLIPSE, TWIG), (PLAIN, SMOOTH), 0.3, 0.5, 20, 6
    ),
    "soil": Material(((128, 104, 76), (104, 82, 60), (152, 128, 96)), (BLOB,), (ROUGH,), 0.5, 0.3, 25, 8),
    "petals": Material(
        ((196, 52, 60), (226, 178, 52), (180, 90, 150), (240, 232, 220)), (ELLIPSE, LENS), (PLAIN,), 0.2, 0.4, 6, 3
    ),
    "cloth": Material(
        ((48, 66, 120), (150, 40, 44), (210, 202, 190), (54, 54, 60)),
        (POLYGON, BLOB),
        (STRIPES, SMOOTH),
        0.4,
        0.4,
        35,
        4,
    ),
    "water": Material(((70, 104, 124), (44, 72, 90), (110, 146, 160)), (ELLIPSE,), (SMOOTH, STRIPES), 0.3, 0.2, 60, 5),
    "skin": Material(((198, 150, 122), (160, 110, 86), (222, 182, 156)), (ELLIPSE, BLOB), (SMOOTH,), 0.15, 0.8, 25, 4),
    "snow": Material(((222, 228, 236), (196, 206, 222), (236, 238, 240)), (BLOB,), (SMOOTH,), 0.15, 0.4, 40, 6),
}

# Which materials go together; a scene takes most of a list.
SETTINGS = (
    ("foliage", "wood", "soil", "stone", "petals"),
    ("meadow", "foliage", "soil", "wood", "water"),
    ("autumn", "wood", "soil", "foliage", "stone"),
    ("brick", "plaster", "metal", "foliage", "stone"),
    ("plaster", "stone", "cloth", "skin", "metal"),
    ("stone", "water", "soil", "meadow", "snow"),
    ("snow", "stone", "wood", "water", "metal"),
    ("cloth", "petals", "wood", "skin", "plaster"),
)
