"""Mean intersection over union: its arithmetic on maps made by hand, and networks that segment."""

import math
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score

from trainers.segment import MAPILLARY, SegmentationScore, Segmenter, confusion, mean_iou

CPU = torch.device("cpu")


def test_iou_of_a_map_made_by_hand():
    reference = np.array([[0, 0, 1], [1, 1, 3]])
    predicted = np.array([[0, 1, 1], [1, 3, 3]])
    confused = confusion(predicted, reference, 5)
    np.testing.assert_array_equal(confused[1], [0, 2, 0, 1, 0])
    # 1 of 2, 2 of 4, 1 of 2; classes 2 and 4 are in neither.
    assert mean_iou(confused) == pytest.approx((1 / 2 + 2 / 4 + 1 / 2) / 3)
    assert mean_iou(confusion(reference, reference, 5)) == 1
    assert math.isnan(mean_iou(np.zeros((5, 5), np.int64)))


@pytest.mark.parametrize("seed", range(4))
def test_iou_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 9))
    present = rng.choice(classes, int(rng.integers(1, classes + 1)), replace=False)
    predicted, reference = (rng.choice(present, (13, 17)) for _ in range(2))
    confused = confusion(predicted.astype(np.uint8), reference, classes)
    labels = np.arange(classes)
    np.testing.assert_array_equal(confused, confusion_matrix(reference.ravel(), predicted.ravel(), labels=labels))
    there = np.union1d(predicted, reference)
    expected = jaccard_score(reference.ravel(), predicted.ravel(), labels=there, average="macro")
    assert mean_iou(confused) == pytest.approx(expected)


def test_maps_that_do_not_fit_are_refused():
    ones = np.ones((2, 3), np.int64)
    with pytest.raises(ValueError, match=r"maps must be of one size, got \(2, 3\) and \(3, 2\)"):
        confusion(ones, ones.T, 2)
    with pytest.raises(ValueError, match="reference must hold classes from 0 to 1, got 2 to 2"):
        confusion(ones, 2 * ones, 2)


def test_score_of_a_data_set_is_that_of_all_pixels_together():
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (size, 20, 3), np.uint8) for size in (4, 30, 12)]
    sharps = [rng.integers(0, 256, image.shape, np.uint8) for image in images]
    calls = []

    def segment(image):
        calls.append(image)
        return image[..., 0] // 64

    score = SegmentationScore(segment, 4)
    alone = []
    for image, sharp in zip(images, sharps, strict=True):
        alone.append(score.add("input", image, sharp))
        assert score.add("output", sharp, sharp) == 1
    assert len(calls) == 3 * len(images)
    pixels = [np.concatenate([one[..., 0].ravel() // 64 for one in several]) for several in (sharps, images)]
    expected = jaccard_score(*pixels, average="macro")
    assert score.totals() == {"input": pytest.approx(expected), "output": 1}
    assert expected != pytest.approx(np.mean(alone), abs=1e-6)
    assert score.anew().totals() == {}


def test_equal_images_count_only_where_there_are_no_others():
    images = np.random.default_rng(2).integers(0, 2, (2, 8, 8, 3), np.uint8)
    score = SegmentationScore(lambda image: image[..., 0], 2)
    score.add("input", images[0], images[0], counts=False)
    assert score.totals() == {"input": 1}
    alone = score.add("input", images[0], images[1], counts=True)
    assert score.totals() == {"input": pytest.approx(alone)}


def test_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RuntimeError, match=r'needs transformers.*pip install "blurgen\[segment\]"'):
        Segmenter(MAPILLARY, CPU)


def _tiny(name, folder):
    """Save a network with random weights, and its image processor."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    common = {"num_labels": 5, "initializer_range": 0.5}
    if name == "segformer":
        config = transformers.SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3],
            strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=8, **common,
        )  # fmt: skip
        model, processor = transformers.SegformerForSemanticSegmentation(config), transformers.SegformerImageProcessor
    else:
        backbone = transformers.SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = transformers.Mask2FormerConfig(
            backbone_config=backbone, hidden_dim=32, feature_size=32, mask_feature_size=32, encoder_layers=1,
            decoder_layers=2, num_attention_heads=2, dim_feedforward=16, encoder_feedforward_dim=16, num_queries=6,
            **common,
        )  # fmt: skip
        model = transformers.Mask2FormerForUniversalSegmentation(config)
        processor = transformers.Mask2FormerImageProcessor
        with torch.no_grad():  # as they are drawn, all masks are of one class
            for part, values in model.named_parameters():
                if any(name in part for name in ("class_predictor", "mask_embedder", "queries")):
                    values.copy_(3 * torch.randn(values.shape))
    model.save_pretrained(folder)
    processor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return model.eval(), processor.from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segformer", "mask2former"])
def test_network_of_a_folder_segments_and_scores(name, tmp_path):
    model, processor = _tiny(name, tmp_path / name)
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    segment = Segmenter(str(tmp_path / name), CPU)
    found = segment(image)
    with torch.inference_mode():
        outputs = model(**processor(images=image, return_tensors="pt"))
    expected = processor.post_process_semantic_segmentation(outputs, target_sizes=[(70, 90)])[0]
    np.testing.assert_array_equal(found, expected.numpy())
    assert segment.classes == 5
    assert len(np.unique(found)) > 1
    score = SegmentationScore(segment, segment.classes)
    assert score.add("output", image, image) == 1
    assert score.add("input", image[::-1].copy(), image) < 1


@pytest.mark.slow
def test_networks_that_cannot_segment_are_refused(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=rf"--segmenter no/such-one can't be had, .*such as {MAPILLARY}"):
        Segmenter("no/such-one", CPU)
    # Nobody is asked for what cannot be a name there.
    with pytest.raises(ValueError, match=rf"--segmenter nets/mine/ is no folder, .* as {MAPILLARY}"):
        Segmenter("nets/mine/", CPU)
    with pytest.raises(ValueError, match="can't be had"):
        Segmenter(str(tmp_path), CPU)
    _tiny("segformer", tmp_path / "whole")
    bare = transformers.SegformerModel.from_pretrained(tmp_path / "whole")
    bare.save_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"lacks \d+ of its weights, such as decode_head"):
        Segmenter(str(tmp_path / "whole"), CPU)
    (tmp_path / "whole/model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="can't be had"):
        Segmenter(str(tmp_path / "whole"), CPU)
