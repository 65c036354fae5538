"""SinGAN: the pyramid, its networks, what a step trains, resuming inside of a scale, and a pyramid that learns."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import correlate2d
from trainer_data import CPU, _quick_convolutions, counted_calls, gradient_norms, values  # noqa: F401

from blurgen.options import build
from trainers.loop import Job, train
from trainers.method import Batch
from trainers.models import method_class
from trainers.models.singan import SinGAN, SinGANConfig
from trainers.nets.scale_nets import ScaleCritic, ScaleGenerator
from trainers.noise import Noise
from trainers.pyramid import pyramid_of, resized
from trainers.run_options import RunOptions
from trainers.single import SingleOptions

TINY = {"width": 2, "most_width": 4, "crop": 20, "coarsest": 12, "iterations": 2, "decay_iteration": 1}
SIZE = (16, 20)


def picture(height=SIZE[0], width=SIZE[1], seed=0):
    """Return smooth noise with a bright square, (H, W, 3) uint8."""
    image = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    image[height // 4 : height // 2, width // 4 : width // 2] = (255, 230, 20)
    return image


def tensor(image):
    return torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(127.5) - 1).float()


def system(size=SIZE, seed=0, **changes):
    config = build(SinGANConfig, TINY | {"image_height": size[0], "image_width": size[1]} | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SinGAN(config)


def batch_at(step, count=1, image=None):
    real = tensor(picture() if image is None else image).expand(count, -1, -1, -1)
    return Batch(real, real, Noise(0, step, range(step * count, (step + 1) * count), CPU))


def trained(steps, count=1, start=0, method=None, **changes):
    method = method or system(batch=count, **changes)
    for step in range(start, start + steps):
        scalars = method.step(batch_at(step, count))
        method.average_weights()
    return method, scalars


def test_frames_of_gopro_have_the_eight_scales_of_the_paper():
    pyramid = pyramid_of(720, 1280)
    sizes = ((25, 45), (33, 57), (41, 73), (53, 94), (68, 120), (87, 153), (111, 196), (141, 250))
    assert pyramid.sizes == sizes
    assert pyramid.scales == 8
    assert pyramid.ratio == pytest.approx(0.781, abs=5e-4)
    assert pyramid.finest_size(1440, 2560) == (141, 250)
    assert pyramid.size_below(720, 1280, 0) == (720, 1280)
    assert pyramid.size_below(100, 200, 2) == (62, 123)


@pytest.mark.parametrize("size", [(25, 25), (24, 300), (100, 1280)])
def test_images_without_a_pyramid_are_refused(size):
    with pytest.raises(ValueError, match=rf"shorter side above 25 px .* one of {size[1]}x{size[0]} px has \d+"):
        pyramid_of(*size)


@pytest.mark.parametrize(("width", "count"), [(32, 29_763), (64, 114_819), (128, 450_819)])
def test_generators_have_the_published_number_of_parameters(width, count):
    assert sum(p.numel() for p in ScaleGenerator(width).parameters()) == count
    config = SinGANConfig()
    assert [config.width_of(scale) for scale in range(14)] == [32] * 4 + [64] * 4 + [128] * 6


def test_a_generator_is_five_convolutions_between_zeros_and_a_sum():
    """Compare with SciPy, and the norms with their formula, in evaluation mode."""
    torch.manual_seed(0)
    generator, rng = ScaleGenerator(3).eval(), np.random.default_rng(0)
    for layer in generator.layers:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            layer.bias.data.normal_()
        elif isinstance(layer, torch.nn.Conv2d):
            layer.weight.data *= 20
    noise, below = rng.normal(size=(2, 3, 6, 7)).astype(np.float32)
    x = np.pad(noise + below, ((0, 0), (5, 5), (5, 5))).astype(np.float64)
    state = {name: value.double().numpy() for name, value in generator.state_dict().items()}
    for number in (0, 3, 6, 9, 12):
        weight, bias = (state[f"layers.{number}.{part}"] for part in ("weight", "bias"))
        x = np.stack([sum(correlate2d(a, k, "valid") for a, k in zip(x, kernels, strict=True)) for kernels in weight])
        x += bias[:, None, None]
        if number < 12:
            mean, var, scale, shift = (
                state[f"layers.{number + 1}.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = (x - mean) / np.sqrt(var + 1e-5) * scale + shift
            x = np.where(x > 0, x, 0.2 * x)
    given = torch.from_numpy(noise)[None], torch.from_numpy(below)[None]
    with torch.no_grad():
        made = generator(*given)
        for rows in (1, 4, 6, 100):
            torch.testing.assert_close(generator.in_strips(*given, rows), made)
    np.testing.assert_allclose(made[0].numpy(), below + np.tanh(x), atol=1e-5)


def test_a_critic_judges_patches_of_11_px_and_its_last_bias_is_at_rest():
    critic = ScaleCritic(2).eval()
    assert critic(torch.zeros(2, 3, 11, 13)).shape == (2, 1, 1, 3)
    assert [name for name, p in critic.named_parameters() if not p.requires_grad] == ["layers.12.bias"]


@pytest.mark.parametrize("size", [(7, 9), (29, 40)])
def test_images_are_resized_as_pillow_does_it(size):
    image = np.random.default_rng(0).normal(size=(3, 16, 20)).astype(np.float32)
    expected = [np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC)) for plane in image]
    np.testing.assert_allclose(resized(torch.from_numpy(image)[None], size)[0].numpy(), expected, atol=1e-5)


def test_what_begins_the_scales_is_what_the_formulas_say():
    method, _ = trained(5)
    restorer, finest = method.restorer, tensor(picture())
    assert restorer.pyramid.sizes == ((12, 15), (14, 18), (16, 20))
    assert restorer.noise.fixed.shape == (1, 1, 12, 15)
    assert (restorer.noise.reached, int(restorer.noise.begun), method._scale) == (3, 3, 2)
    below = torch.zeros(1, 3, 12, 15)
    with torch.no_grad():
        for scale, size in enumerate(restorer.pyramid.sizes):
            if scale:
                below = resized(made, size)  # noqa: F821
                deviation = 0.1 * np.sqrt(np.mean((resized(finest, size) - below).numpy() ** 2))
                assert restorer.noise.amplitudes[scale].item() == pytest.approx(deviation, rel=1e-5)
            noise = restorer.noise.fixed.expand(-1, 3, -1, -1) if not scale else torch.zeros(1, 3, *size)
            made = restorer.generators[scale].eval()(noise, below)
    assert restorer.noise.amplitudes[0] == 1
    torch.testing.assert_close(restorer.reconstruct(2)[1], made)
    torch.testing.assert_close(method._begin, below)
    torch.testing.assert_close(method._real, finest)


def test_a_scale_begins_from_the_weights_of_the_one_before_where_they_are_as_wide():
    method = system(size=(40, 52), crop=52)
    widths = [method.config.width_of(scale) for scale in range(method.config.pyramid.scales)]
    assert widths[:6] == [2, 2, 2, 2, 4, 4]
    method.enter(2, tensor(picture(40, 52)))
    before = {name: values(network) for name, network in method.networks.items()}
    method.enter(5, tensor(picture(40, 52)))
    for part in ("generator", "critic"):
        for scale in (3, 5):
            for name, value in values(method.networks[f"{part}_{scale}"]).items():
                assert torch.equal(value, values(method.networks[f"{part}_{scale - 1}"])[name])
        after = values(method.networks[f"{part}_4"])
        assert all(torch.equal(after[name], value) for name, value in before[f"{part}_4"].items())


def test_losses_train_the_networks_of_their_scale_and_nothing_else():
    method, _ = trained(3, count=2)
    batch = batch_at(3, 2)
    method.enter(1, batch.sharp[:1])
    below = method.draw_below(1, batch.noise, "update 0")
    parts = {name: network for name, network in method.networks.items() if name != "noise"}
    for trains, losses in (
        ("critic_1", method.critic_losses(batch, below, 0)),
        ("generator_1", method.generator_losses(batch, below)),
    ):
        whole = gradient_norms(parts, sum(losses.values()))[trains]
        for name, loss in losses.items():
            norms = gradient_norms(parts, loss)
            assert norms.pop(trains) > 1e-4 * whole, name
            assert set(norms.values()) == {0.0}, name
    assert not below.requires_grad
    assert set(losses) == {"adversarial", "reconstruction"}


def test_losses_are_those_of_the_images_that_are_made():
    method, _ = trained(3)
    batch = batch_at(3)
    below = method.draw_below(1, batch.noise, "update 0")
    critic, generator = method.networks["critic_1"], method.networks["generator_1"]
    with torch.no_grad():
        noise = method.restorer.noise.amplitudes[1] * batch.noise.normal("scale, scale 1", 3, 14, 18)
        fake, real = generator(noise, below), resized(tensor(picture()), (14, 18))
        made = generator(torch.zeros(1, 3, 14, 18), method._begin)
        expected = {
            "adversarial": -critic(fake).mean(),
            "critic": critic(fake).mean() - critic(real).mean(),
            "reconstruction": (made - real).pow(2).mean(),
        }
    share = batch.noise.common("penalty 0")
    between = (share * real + (1 - share) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between)
    expected["gradient_penalty"] = (gradient.pow(2).sum(1).sqrt() - 1).pow(2).mean()
    found = method.critic_losses(batch, below, 0) | method.generator_losses(batch, below)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_each_update_of_the_generator_makes_its_fake_anew():
    method, _ = trained(2)
    with counted_calls(method) as calls:
        trained(1, start=2, method=method)
    # Three fakes for the critic, then three of fake and reconstruction, and what lies below, drawn and fixed.
    assert calls["generator_1"] == 3 + 3 * 2
    assert calls["generator_0"] == 3 + 2
    assert calls["critic_1"] == 3 * 2 + 3, "the penalty goes by forward alone, which no hook sees"
    assert calls["generator_2"] == calls["critic_0"] == 0


def test_statistics_of_a_scale_rest_while_others_are_trained():
    method, _ = trained(2)
    before = {name: buffer.clone() for name, buffer in method.networks["generator_0"].named_buffers()}
    weights = values(method.networks["generator_0"])
    trained(2, start=2, method=method)
    assert not method.networks["generator_0"].training
    assert method.networks["generator_1"].training
    assert all(torch.equal(before[name], buffer) for name, buffer in method.networks["generator_0"].named_buffers())
    assert all(torch.equal(weights[name], value) for name, value in values(method.networks["generator_0"]).items())
    moved = method.networks["generator_1"].layers[1].running_mean
    assert not torch.equal(moved, before["layers.1.running_mean"])


def test_the_learning_rate_falls_inside_of_every_scale():
    method, rates = system(iterations=3, decay_iteration=2), []
    for step in range(10):
        method.set_epoch(step // 3)
        method.step(batch_at(step))
        rates.append({group["lr"] for one in method.optimizers.values() for group in one.param_groups})
    assert all(len(alike) == 1 for alike in rates)
    # Beyond its end, the finest scale goes on.
    assert [alike.pop() for alike in rates] == pytest.approx([5e-4, 5e-4, 5e-5] * 3 + [5e-5])
    assert method.config.epochs == 3
    assert method.milestones(method.config) == (0, 3, 6)


CHANGES = {
    "width": 3, "most_width": 2, "batch": 2, "crop": 18, "coarsest": 13, "ratio": 0.9, "flips": True, "iterations": 3,
    "decay_iteration": 2, "decay_rate": 0.5, "lr": 1e-3, "beta1": 0.1, "beta2": 0.5, "weight_decay": 0.1,
    "clip_norm": 1e-3, "critic_updates": 1, "generator_updates": 1, "adversarial": 0.0, "reconstruction": 0.0,
    "gradient_penalty": 0.0, "noise": 0.5, "ema": 0.9,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain():
    return trained(6)[0].averaged.state_dict()


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_acts(field, plain):
    """Six steps, two of each scale; `most_width` bounds scales that this small image has not, but the Config tells."""
    assert set(CHANGES) == {one.name for one in dataclasses.fields(SinGANConfig)} - {"image_height", "image_width"}
    if field == "most_width":
        assert SinGANConfig(most_width=48).width_of(4) == 48
        return
    value = CHANGES[field]
    count = value if field == "batch" else 1
    state = trained(6, count, **({} if field == "batch" else {field: value}))[0].averaged.state_dict()
    assert any(name not in state or not torch.equal(state[name], tensor) for name, tensor in plain.items())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"coarsest": 10}, "coarsest must be above 10 px, what a critic sees, and ratio"),
        ({"ratio": 1.0}, r"ratio in \[0.1, 0.95\], got 25 and 1"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"critic_updates": 0}, "critic_updates must be at least 1"),
        ({"decay_rate": 0.0}, r"decay_rate in \(0, 1\]"),
        ({"noise": -1.0}, "noise must be at least 0 and finite, got -1"),
        ({"reconstruction": 0.0, "adversarial": 0.0}, "at least one loss needs a weight above 0"),
        ({"image_height": 40}, "image_height and image_width must be given together"),
        ({"image_height": 0, "image_width": 3}, "image_height and image_width must be at least 1 px"),
        ({"crop": 0}, "crop must be at least 1"),
    ],
)
def test_values_that_nothing_trains_with_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(SinGANConfig, values)


def test_a_config_is_fitted_to_the_image_and_to_no_other():
    fitted = SinGAN.fitted(SinGANConfig(), 720, 1280)
    assert (fitted.image_height, fitted.image_width) == (720, 1280)
    assert SinGAN.fitted(fitted, 720, 1280) == fitted
    with pytest.raises(ValueError, match="must be those of the image, 640 and 480 px, got 720 and 1280: leave them"):
        SinGAN.fitted(fitted, 640, 480)
    with pytest.raises(ValueError, match="shorter side above 25 px"):
        SinGAN.fitted(SinGANConfig(), 20, 1280)
    with pytest.raises(TypeError, match="cyclegan trains on more than one image"):
        method_class("cyclegan").fitted(None, 1, 1)


def test_averaged_weights_are_the_last_ones_or_follow_them():
    last, _ = trained(4)
    theirs = last.restorer.state_dict()
    for name, value in last.averaged.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, theirs[name]), name
    method, expected = system(ema=0.9), None
    for step in range(6):
        method.step(batch_at(step))
        now = {name: value.clone() for name, value in method.restorer.generators[step // 2].state_dict().items()}
        if step % 2 == 0:
            expected = {
                name: value.clone() for name, value in method.averaged.generators[step // 2].state_dict().items()
            }
        method.average_weights()
        decay = (2 + step % 2) / (11 + step % 2)
        expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in expected}
    for name, value in method.averaged.generators[2].state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])


def test_a_system_takes_the_state_of_another_whatever_it_has_done_before(tmp_path):
    first, _ = trained(3)
    second, _ = trained(4, seed=1)
    torch.save(first.state(), tmp_path / "state.pt")
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    states = [dict(leaves(trained(2, start=3, method=method)[0].state())) for method in (first, second)]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) if isinstance(value, torch.Tensor) else value == states[1][name], (
            name
        )


def test_networks_of_other_runs_are_refused():
    method = system()
    with pytest.raises(ValueError, match="begins every scale from the one below it: leave out --init-from"):
        method.load_initial(method.networks.state_dict())


def run_of(folder: Path, image: Path, steps: int, **changes):
    config = build(SinGANConfig, TINY | {"iterations": 4, "decay_iteration": 3} | changes)
    options = RunOptions(out=folder, steps=steps, device="cpu", validate_every=100, log_every=1)
    return train(Job(SinGAN, config, SingleOptions(image), options), quiet=True)


@pytest.mark.parametrize("k", [6, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 4))])
def test_a_run_goes_on_inside_of_a_scale_and_between_two_bit_for_bit(tmp_path, k):
    image = tmp_path / "sharp.png"
    cv2.imwrite(str(image), picture())
    for folder, steps in (("straight", (9,)), ("parted", (k, 9))):
        for n in steps:
            run_of(tmp_path / folder, image, n, ema=0.5, flips=True)
    states = [
        torch.load(tmp_path / folder / "states" / "00000009.pt", weights_only=True)["method"]
        for folder in ("straight", "parted")
    ]
    first, second = (dict(leaves(state)) for state in states)
    assert first.keys() == second.keys()
    assert len([name for name in first if name.startswith("/optimizers/generators/state")]) > 100
    for name, value in first.items():
        assert torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name], name
    assert (tmp_path / "parted" / "last.safetensors").read_bytes() == (
        tmp_path / "straight" / "last.safetensors"
    ).read_bytes()


def leaves(value, name=""):
    """Yield every tensor and plain value below `value` with its place."""
    if isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{name}/{key}")
    else:
        yield name, value


@pytest.mark.parametrize("size", [(24, 30), pytest.param((48, 63), marks=pytest.mark.slow)])
def test_a_pyramid_reconstructs_its_image_better_scale_by_scale(size):
    """PSNR by NumPy, of the reconstruction of every scale enlarged to the finest."""
    image = np.random.default_rng(0).integers(0, 2, (size[0] // 3, size[1] // 3, 3), dtype=np.uint8)
    image = (20 + 215 * image.repeat(3, 0).repeat(3, 1)).astype(np.uint8)
    learning = {"lr": 2e-3, "iterations": 40, "decay_iteration": 30, "critic_updates": 1}
    method = system(size, crop=64, width=8, most_width=8, ratio=0.5, **learning)
    for step in range(40 * method.config.epochs):
        method.step(batch_at(step, image=image))
        method.average_weights()
    finest = tensor(image)[0].numpy()
    made = [resized(method.averaged.reconstruct(scale)[1], size)[0] for scale in range(method.config.epochs)]
    psnr_db = [10 * np.log10(4 / np.mean((one.detach().numpy() - finest) ** 2)) for one in made]
    assert np.all(np.diff(psnr_db) > 0.8), psnr_db
    gray_db = 10 * np.log10(4 / np.mean(finest**2))
    assert psnr_db[-1] > gray_db + 6, (psnr_db, gray_db)
