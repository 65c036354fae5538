"""Small folders laid out like real datasets, with decoys: labels, thumbnails, other sizes, other sides."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True)
class Tree:
    """A dataset in one of its layouts.

    Parameters
    ----------
    recipe, layout : str
        What should find it.
    sharp : path -> (split, group)
        Every sharp image; a group of None is the path itself.
    blurred : path -> path
        Every blurred image and its sharp partner.
    decoys : tuple of str
        Images that are neither.
    texts : path -> content
        Lists and tables beside the images.
    """

    recipe: str
    layout: str
    sharp: dict[str, tuple[str, str | None]]
    blurred: dict[str, str] = field(default_factory=dict)
    decoys: tuple[str, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)

    def plant(self, root: Path) -> Path:
        """Write the tree below a folder, and return the folder."""
        plant(root, (*self.sharp, *self.blurred, *self.decoys))
        for path, text in self.texts.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return root


def plant(root, paths, size=(6, 8)):
    """Write small images with the given (height, width), each of another gray."""
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((*size, 3), (37 * number + 11) % 256, np.uint8)
        file.write_bytes(cv2.imencode(file.suffix, pixels)[1].tobytes())


def _mapillary(label_folders, layout="vistas"):
    names = {
        "training": ("-eGpGmG2YBFiIJKbToWO0g", "_Xa5YiPyEh_tmPVOdQm1tg"),
        "validation": ("-OB82zvf2k0rTOxuMEuQGA",),
    }
    sharp = {f"{split}/images/{name}.jpg": (split, None) for split, stems in names.items() for name in stems}
    labels = [
        f"{split}/{folder}/{name}.png" for split, stems in names.items() for name in stems for folder in label_folders
    ]
    sharp["testing/images/0-7o1rpgKGsNDGh2Pcj3TQ.jpg"] = ("testing", None)
    return Tree("mapillary", layout, sharp, decoys=(*labels, "demo.png"), texts={"config.json": "{}"})


_GOPRO_SCENES = {"train": ("GOPR0372_07_00", "GOPR0374_11_02"), "test": ("GOPR0384_11_00",)}


def _gopro(layout, side, other, prefix=""):
    sharp, blurred, decoys = {}, {}, []
    for split, scenes in _GOPRO_SCENES.items():
        for scene in scenes:
            for frame in ("000047", "000048"):
                target = f"{prefix}{split}/{scene}/sharp/{frame}.png"
                sharp[target] = (split, scene)
                blurred[f"{prefix}{split}/{scene}/{side}/{frame}.png"] = target
                decoys.append(f"{prefix}{split}/{scene}/{other}/{frame}.png")
    return Tree("gopro", layout, sharp, blurred, tuple(decoys))


def _realblur(letter, folder):
    other = {"J": "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref", "R": "RealBlur-J_BM3D"}[letter]
    sharp, blurred, texts = {}, {}, {}
    for split, scene in (("train", "scene001"), ("test", "scene230")):
        lines = []
        for number in (1, 10):
            target, source = f"{folder}/{scene}/gt/gt_{number}.png", f"{folder}/{scene}/blur/blur_{number}.png"
            sharp[target], blurred[source] = (split, scene), target
            lines.append(f"{target} {source}\n")
        texts[f"RealBlur_{letter}_{split}_list.txt"] = "".join(lines)
    return Tree("realblur", letter, sharp, blurred, (f"{other}/scene001/gt_thumb/gt_1.png",), texts)


def _celeba(layout, images, identities, partition, separator):
    persons = {
        "000001.jpg": ("0", "2880"),
        "000002.jpg": ("0", "2937"),
        "162771.jpg": ("1", "2880"),
        "182638.jpg": ("2", "41"),
    }
    splits = {"0": "train", "1": "valid", "2": "test"}
    sharp = {
        f"{images}/{name}": (splits[part], person if identities else None) for name, (part, person) in persons.items()
    }
    header = "image_id,partition\n" if separator == "," else ""
    texts = {partition: header + "".join(f"{name}{separator}{part}\n" for name, (part, _) in persons.items())}
    if identities:
        texts[identities] = "".join(f"{name} {person}\n" for name, (_, person) in persons.items())
    return Tree("celeba", layout, sharp, decoys=("img_celeba/000001.jpg",), texts=texts)


def _split_folders(recipe, layout, pattern, counts, decoys, group=None):
    """Return a tree whose splits are folders; `pattern` has places for the split and a number."""
    paths = {
        split: [pattern.format(split=split, n=number) for number in range(count)] for split, count in counts.items()
    }
    sharp = {path: (split, group and group(path)) for split, each in paths.items() for path in each}
    return Tree(recipe, layout, sharp, decoys=tuple(decoys))


def _stem(path):
    return Path(path).stem


TREES = [
    _mapillary(("labels", "instances", "panoptic")),
    _mapillary(("v1.2/labels", "v1.2/instances", "v1.2/panoptic", "v2.0/labels", "v2.0/instances", "v2.0/panoptic")),
    _gopro("linear", "blur", "blur_gamma"),
    _gopro("linear", "blur", "blur_gamma", "GOPRO_Large/"),
    _gopro("gamma", "blur_gamma", "blur"),
    Tree(
        "gopro",
        "input-target",
        {"train/target/GOPR0372_07_00-000047.png": ("train", "GOPR0372_07_00")}
        | {"test/target/GOPR0384_11_00-000001.png": ("test", "GOPR0384_11_00")},
        {"train/input/GOPR0372_07_00-000047.png": "train/target/GOPR0372_07_00-000047.png"}
        | {"test/input/GOPR0384_11_00-000001.png": "test/target/GOPR0384_11_00-000001.png"},
        ("train/preview.png",),
    ),
    _realblur("J", "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"),
    _realblur("R", "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"),
    _celeba("flat", "img_align_celeba", "identity_CelebA.txt", "list_eval_partition.txt", " "),
    _celeba("official", "Img/img_align_celeba", "Anno/identity_CelebA.txt", "Eval/list_eval_partition.txt", " "),
    _celeba("kaggle", "img_align_celeba/img_align_celeba", "", "list_eval_partition.csv", ","),
    _split_folders(
        "cityscapes",
        "leftImg8bit",
        "leftImg8bit/{split}/aachen/aachen_00000{n}_000019_leftImg8bit.png",
        {"train": 3, "val": 2, "test": 1, "train_extra": 1},
        [
            "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
            "leftImg8bit/train/aachen/aachen_000000_000019_gtFine_color.png",
            "rightImg8bit/train/aachen/aachen_000000_000019_rightImg8bit.png",
        ],
        lambda path: "_".join(_stem(path).split("_")[:2]),
    ),
    Tree(
        "kitti",
        "raw",
        {
            f"2011_09_26/2011_09_26_drive_0001_sync/image_02/data/000000000{n}.png": ("", "2011_09_26_drive_0001")
            for n in "01"
        }
        | {"2011_10_03/2011_10_03_drive_0027_sync/image_02/data/0000000000.png": ("", "2011_10_03_drive_0027")},
        decoys=tuple(f"2011_09_26/2011_09_26_drive_0001_sync/image_0{n}/data/0000000000.png" for n in (0, 1, 3)),
    ),
    Tree(
        "kitti",
        "odometry",
        {
            "sequences/00/image_2/000000.png": ("", "sequences/00"),
            "sequences/21/image_2/000001.png": ("", "sequences/21"),
        },
        decoys=("sequences/00/image_0/000000.png", "sequences/00/image_3/000000.png"),
    ),
    Tree(
        "kitti",
        "stereo-2015",
        {"training/image_2/000000_10.png": ("training", "training/000000")}
        | {"training/image_2/000000_11.png": ("training", "training/000000")}
        | {"testing/image_2/000000_10.png": ("testing", "testing/000000")},
        decoys=("training/image_3/000000_10.png", "training/disp_occ_0/000000_10.png"),
    ),
    _split_folders(
        "kitti",
        "object",
        "{split}/image_2/00000{n}.png",
        {"training": 3, "testing": 2},
        ["training/image_3/000000.png", "training/prev_2/000000_01.png"],
    ),
    _split_folders(
        "bdd100k",
        "100k",
        "images/100k/{split}/0000f77c-6257be5{n}.jpg",
        {"train": 3, "val": 1, "test": 1},
        ["images/10k/train/0004a4c0-d4dff0ad.jpg", "labels/sem_seg/masks/train/0000f77c-6257be58.png"],
        _stem,
    ),
    _split_folders(
        "bdd100k",
        "10k",
        "bdd100k/images/10k/{split}/0004a4c0-d4dff0a{n}.jpg",
        {"train": 2, "val": 1},
        ["bdd100k/labels/drivable/colormaps/train/0004a4c0-d4dff0a0.png"],
        _stem,
    ),
    Tree(
        "camvid",
        "stills",
        {
            "701_StillsRaw_full/0016E5_07961.png": ("", "0016E5"),
            "701_StillsRaw_full/Seq05VD_f00000.png": ("", "Seq05VD"),
        },
        decoys=("LabeledApproved_full/0016E5_07961_L.png",),
    ),
    _split_folders(
        "camvid",
        "segnet",
        "{split}/0006R0_f0{n}930.png",
        {"train": 2, "val": 1, "test": 1},
        ["trainannot/0006R0_f00930.png", "valannot/0006R0_f00930.png"],
        lambda path: "0006R0",
    ),
    Tree(
        "div2k",
        "HR",
        {"DIV2K_train_HR/0001.png": ("train", None), "DIV2K_valid_HR/0801.png": ("valid", None)},
        decoys=("DIV2K_train_LR_bicubic/X2/0001x2.png", "DIV2K_valid_LR_mild/0801x4m.png"),
    ),
    Tree(
        "flickr2k",
        "HR",
        {"Flickr2K/Flickr2K_HR/000001.png": ("", None), "Flickr2K/Flickr2K_HR/002650.png": ("", None)},
        decoys=("Flickr2K/Flickr2K_LR_bicubic/X2/000001x2.png",),
    ),
    Tree(
        "reds",
        "sequences",
        {f"train/train_sharp/{n}/00000000.png": ("train", f"train/{n}") for n in ("000", "239")}
        | {"val/val_sharp/000/00000099.png": ("val", "val/000")},
        {f"train/train_blur/{n}/00000000.png": f"train/train_sharp/{n}/00000000.png" for n in ("000", "239")}
        | {"val/val_blur/000/00000099.png": "val/val_sharp/000/00000099.png"},
        ("train/train_sharp_bicubic/X4/000/00000000.png", "train/train_blur_comp/000/00000000.png"),
    ),
    _split_folders(
        "coco",
        "2017",
        "{split}/00000000013{n}.jpg",
        {"train2017": 2, "val2017": 1, "test2017": 1, "unlabeled2017": 1},
        ["stuffthingmaps/train2017/000000000130.png", "annotations/panoptic_train2017/000000000130.png"],
    ),
    _split_folders(
        "coco",
        "2014",
        "images/{split}/COCO_{split}_00000000000{n}.jpg",
        {"train2014": 2, "val2014": 1},
        ["annotations/preview.jpg"],
    ),
    _split_folders(
        "bsds500",
        "BSDS500",
        "BSR/BSDS500/data/images/{split}/10007{n}.jpg",
        {"train": 3, "val": 2, "test": 1},
        ["BSR/bench/data/images/2018.jpg", "BSR/documentation/montage.png"],
    ),
    Tree(
        "bmvc-text",
        "triplets",
        {"BMVC_image_data/orig/0000000_orig.png": ("train", "BMVC_image_data/0000000")}
        | {"BMVC_OCR_test_data/orig/0000000_orig.png": ("test", "BMVC_OCR_test_data/0000000")},
        {"BMVC_image_data/blur/0000000_blur.png": "BMVC_image_data/orig/0000000_orig.png"}
        | {
            f"BMVC_OCR_test_data/n_{n}/0000000_blur.png": "BMVC_OCR_test_data/orig/0000000_orig.png"
            for n in ("00", "10")
        },
        ("BMVC_image_data/psf/0000000_psf.png", "BMVC_OCR_test_data/psf/0000000_psf.png"),
    ),
    _mapillary(("v2.0/labels", "v2.0/instances", "v2.0/panoptic"), "v2.0"),
]
