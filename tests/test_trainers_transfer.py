"""Starting from another run: what is taken over, what is recorded, and that nothing of it is needed later."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_system import job, lines, read_state, states, train_here, write_shards
from trainer_data import SYSTEMS, _quick_convolutions, tiny  # noqa: F401

from blurgen.options import as_values
from blurgen.shards import open_shards
from trainers.checkpoints import States
from trainers.held_out import read_roles, shard_pairs
from trainers.loop import build_method
from trainers.run_options import RunOptions
from trainers.transfer import begin, images_behind, read_origin
from trainers.weights import save_weights

CPU = torch.device("cpu")
AS = {"width": 2, "blocks": 2, "crop": 32, "batch": 2, "cycle": 0.0, "cycle_pixel": 10.0, "dropout": 0.0}
PLAIN = {"data": "shards.h5", "device": "cpu", "workers": 0}
V2 = {**PLAIN, **AS, "sft": False, "out": "v2"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with shards and a run of v2 of three steps."""
    folder = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_shards(folder / "shards.h5", crop=32)
        train_here("as-cyclegan", steps=3, **V2)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """Change into a copy of that folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def begun(name="as-cyclegan", **values):
    """Return a system as it is before its first step."""
    work = job(name, **PLAIN, **{**AS, **values})
    method = build_method(work, CPU)[0]
    begin(method, work.options)
    return method


def restored(networks, steer):
    """Return what the networks of a state restore, with a generator that is built by itself."""
    from trainers.nets.preactivation import ColorsAndSlope, condition_net
    from trainers.nets.resnet_generator import ResnetGenerator

    condition = torch.nn.Sequential(ColorsAndSlope(), condition_net(4)) if steer else None
    generator = ResnetGenerator(2, 2, residual=True, preactivation=True, condition=condition)
    own = {name.partition(".")[2]: tensor for name, tensor in networks.items() if name.startswith("generator_sharp.")}
    generator.load_state_dict(own)
    with torch.no_grad():
        return generator(torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)


def test_a_run_with_transforms_restores_at_first_exactly_as_the_run_without(here):
    source = read_state("00000003.pt", "v2")["method"]["networks"]
    expected = restored(source, steer=False)
    for seed in (0, 1):
        steered = begun(init_from="v2", seed=seed)
        assert torch.equal(restored(steered.networks.state_dict(), steer=True), expected)
        averaged = {f"generator_sharp.{k.partition('.')[2]}": v for k, v in steered.averaged.state_dict().items()}
        assert torch.equal(restored(averaged, steer=True), expected)
    own = steered.networks.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in source.items())
    assert not torch.equal(restored(begun(sft=True).networks.state_dict(), steer=True), expected)


def test_weights_give_only_what_restores_and_say_so(here, capsys):
    method, untouched = begun(init_from="v2/last.safetensors"), begun()
    assert "last.safetensors holds only the networks that restore images: the others begin at random" in (
        capsys.readouterr().err
    )
    weights = load_file("v2/last.safetensors")
    assert weights
    for name, tensor in weights.items():
        assert torch.equal(method.restorer.state_dict()[name], tensor)
    for name in ("generator_blurred", "critic_sharp"):
        pairs = zip(method.networks[name].parameters(), untouched.networks[name].parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_all_names_of_a_shared_block_are_given_its_weights(here):
    tiny = {"width": 2, "scales": 1, "crop": 16, "batch": 2, "domain": "text"}
    train_here("disentangled", steps=1, out="one", **PLAIN, **tiny)
    work = job("disentangled", init_from="one/last.safetensors", **PLAIN, **tiny)
    method = build_method(work, CPU)[0]
    begin(method, work.options)
    for name, tensor in load_file("one/last.safetensors").items():
        assert torch.equal(method.restorer.state_dict()[name], tensor), name


def test_the_origin_is_recorded_and_not_needed_to_go_on(here):
    values = {**PLAIN, **AS, "out": "sft"}
    train_here("as-cyclegan", steps=1, init_from="v2", **values)
    said = read_state("00000001.pt", "sft")["identity"]["init_from"]
    assert len(bytes.fromhex(said)) == 32
    shutil.rmtree("v2")
    train_here("as-cyclegan", steps=2, init_from="v2", **values)
    train_here("as-cyclegan", steps=3, **values)
    assert read_state("00000003.pt", "sft")["identity"]["init_from"] == said


@pytest.mark.slow
def test_a_resumed_run_is_what_it_would_have_been_without_the_stop(here):
    values = {**PLAIN, **AS, "init_from": "v2"}
    train_here("as-cyclegan", steps=3, out="straight", **values)
    for steps in (1, 3):
        train_here("as-cyclegan", steps=steps, out="parted", **values)
    ours, theirs = (read_state("00000003.pt", run)["method"]["networks"] for run in ("parted", "straight"))
    assert equal(ours, theirs)


def test_a_run_goes_on_from_what_it_was_begun_with_alone(here):
    values = {**PLAIN, **AS, "out": "sft"}
    train_here("as-cyclegan", steps=1, init_from="v2", **values)
    train_here("as-cyclegan", steps=4, **V2)
    with pytest.raises(ValueError, match="begun with other networks than v2 holds now: leave --init-from out"):
        train_here("as-cyclegan", steps=2, init_from="v2", **values)
    with pytest.raises(ValueError, match="begun without --init-from: leave it out, or name another --out"):
        train_here("as-cyclegan", steps=5, init_from="sft", **V2)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("cyclegan", {}, "v2 is of as-cyclegan, and --init-from takes networks of cyclegan here"),
        ("as-cyclegan", {"width": 4}, r"v2: .* has no place here: .*; that run has width 2 \(here 4\), "),
        ("as-cyclegan", {"init_from": "nowhere"}, "nowhere does not exist: name the folder of a run"),
        ("as-cyclegan", {"init_from": "empty"}, "the run has saved no weights yet"),
        ("as-cyclegan", {"init_from": "cut.pt"}, "cut.pt is damaged: give another state"),
        ("as-cyclegan", {"init_from": "shards.h5"}, "shards.h5 holds no weights of a system known here"),
        ("as-cyclegan", {"blur_encoder": "v2"}, "gives a blur encoder, and as-cyclegan has none: leave it out"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(here, tmp_path, name, values, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.pt").write_bytes((tmp_path / "v2/states/00000003.pt").read_bytes()[:-9])
    known = {"width": 2, "blocks": 2} if name == "cyclegan" else AS
    origin = {} if "blur_encoder" in values else {"init_from": "v2"}
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        train_here(name, steps=1, out="new", **{**PLAIN, **known, "crop": 32, **origin, **values})
    assert not (tmp_path / "new").exists()


def test_a_missing_origin_is_named_before_weights_of_features_are_sought(here, monkeypatch):
    def seek(*_):
        pytest.fail("the features were sought")

    monkeypatch.setattr("trainers.loop.build_method", seek)
    with pytest.raises(FileNotFoundError, match="--init-from nowhere does not exist: name the folder of a run"):
        train_here("as-cyclegan", steps=1, out="new", **{**PLAIN, **AS, "crop": 32, "init_from": "nowhere"})


def test_a_file_of_a_state_gives_that_state(here):
    train_here("as-cyclegan", steps=4, **V2)
    older, _ = states("v2")
    expected = read_state(older, "v2")["method"]["networks"]["generator_sharp.encoder.1.weight"]
    given = read_origin(job("as-cyclegan", init_from=f"v2/states/{older}").options.init_from)
    assert torch.equal(given.networks["generator_sharp.encoder.1.weight"], expected)
    newest = read_origin(job("as-cyclegan", init_from="v2").options.init_from)
    assert not torch.equal(newest.networks["generator_sharp.encoder.1.weight"], expected)


# The blur encoder

DISENTANGLED = {
    "disentangled": {"width": 2, "scales": 1, "crop": 32, "batch": 2, "domain": "text", "generator_every": 1},
    "disentangled-sr": {"width": 2, "scales": 1, "crop": 32, "batch": 2, "generator_every": 1},
}


def encoder_of(path):
    """Return the blur encoder in the newest state of a run, or in a file of weights."""
    path = Path(path)
    tensors = load_file(path) if path.is_file() else read_state(states(path)[-1], path)["method"]["networks"]
    return {name: tensor for name, tensor in tensors.items() if name.startswith("blur_encoder.")}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def donor(tmp_path_factory):
    """Return a folder with shards in two resolutions and a run `donor` whose blur encoder has learned."""
    folder = tmp_path_factory.mktemp("donor")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_shards(folder / "shards.h5", crop=32, lowres=(2,))
        train_here("disentangled", steps=2, out="donor", lr=0.01, ema=0.5, **PLAIN, **DISENTANGLED["disentangled"])
    return folder


@pytest.fixture
def beside(donor, tmp_path, monkeypatch):
    """Change into a copy of that folder."""
    shutil.copytree(donor, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["disentangled", pytest.param("disentangled-sr", marks=pytest.mark.slow)])
def test_a_frozen_blur_encoder_is_that_of_the_other_run_and_moves_in_no_way(beside, name):
    values = {**PLAIN, **DISENTANGLED[name], "out": "frozen", "lr": 0.01, "weight_decay": 0.1}
    train_here(name, steps=1, blur_encoder="donor", freeze_blur_encoder=True, **values)
    given = encoder_of("donor")
    before = read_state("00000001.pt", "frozen")
    assert len(bytes.fromhex(before["identity"]["blur_encoder"])) == 32
    shutil.rmtree("donor")
    train_here(name, steps=3, freeze_blur_encoder=True, **values)
    assert equal(encoder_of("frozen"), given)
    assert equal(encoder_of("frozen/last.safetensors"), given)
    after = read_state("00000003.pt", "frozen")["method"]["networks"]
    moved = {
        key.partition(".")[0]
        for key, value in after.items()
        if not torch.equal(value, before["method"]["networks"][key])
    }
    assert moved == {key.partition(".")[0] for key in after} - {"blur_encoder"}


def test_a_blur_encoder_that_is_not_frozen_learns_on(beside):
    name = "disentangled"
    values = {**PLAIN, **DISENTANGLED[name], "out": "free", "lr": 0.01}
    train_here(name, steps=1, blur_encoder="donor/last.safetensors", **values)
    averaged, given = encoder_of("donor/last.safetensors"), encoder_of("donor")
    assert not equal(averaged, given)
    work = job(name, blur_encoder="donor/last.safetensors", **values)
    method = build_method(work, CPU)[0]
    begin(method, work.options)
    own = {f"blur_encoder.{key}": value for key, value in method.networks["blur_encoder"].state_dict().items()}
    assert equal(own, averaged)
    assert not equal(encoder_of("free"), averaged)
    assert "kl" in method.config.weights


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"width": 4, "blur_encoder": "donor"}, r"donor: blur_encoder\..* has no place here.*has width 2 \(here 4\)$"),
        ({"latent": 3, "blur_encoder": "donor"}, r"that run has latent 8 \(here 3\)$"),
        ({"freeze_blur_encoder": True}, "begins, which is at random: name a trained one with --blur-encoder RUN"),
        ({"blur_encoder": "cyclegan"}, "is of cyclegan, which has no blur encoder: name a run that has one"),
    ],
)
def test_a_blur_encoder_that_does_not_fit_is_refused(beside, tmp_path, values, sentence):
    if "cyclegan" in values.values():
        train_here("cyclegan", steps=1, out="cyclegan", width=2, blocks=1, crop=32, batch=2, **PLAIN)
    with pytest.raises(ValueError, match=sentence):
        train_here("disentangled", steps=1, out="new", **{**PLAIN, **DISENTANGLED["disentangled"], **values})
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_sharp_and_blurred_images_of_different_sets_are_trained_on(beside):
    write_shards(Path("other.h5"), crop=32, seed=5)
    values = {**DISENTANGLED["disentangled"], "domain": "photo", "perceptual": 1.0, "vgg_weights": "random"}
    train_here("disentangled", steps=2, out="cross", sharp="other.h5", blurred="shards.h5", device="cpu", **values)
    logged = {key for line in lines("cross") for key in line}
    assert logged >= {"perceptual", "perceptual_random"}
    roles = [line.split("\t") for line in Path("cross/split.tsv").read_text().splitlines()[1:]]
    assert {key[0] for role, _, key in roles if role == "sharp"} == {"5"}
    assert {key[0] for role, _, key in roles if role != "sharp"} == {"0"}


def roles(run):
    """Return role -> keys."""
    rows = [line.split("\t") for line in Path(run, "split.tsv").read_text().splitlines()[1:]]
    return {role: {key for other, _, key in rows if other == role} for role, _, _ in rows}


def test_images_that_the_other_run_trained_on_are_not_measured(beside):
    write_shards(Path("other.h5"), crop=32, seed=5)
    values = {**DISENTANGLED["disentangled"], "out": "after", "data": "other.h5", "device": "cpu"}
    train_here("disentangled", steps=1, blur_encoder="donor/last.safetensors", **values)
    before = roles("donor")
    assert roles("after")["origin"] == before["sharp"] | before["blurred"]
    shutil.rmtree("donor")
    train_here("disentangled", steps=2, **values)
    measured = shard_pairs(Path("shards.h5"), "test", read_roles(Path("after")))
    assert {pair.key for pair in measured.pairs} == before["test"] | before["validation"]
    behind = {line.split("\t")[2] for line in images_behind(Path("new"), RunOptions(init_from=Path("after")))}
    assert behind == set.union(*(roles("after")[role] for role in ("origin", "sharp", "blurred")))


def test_own_test_images_that_the_other_run_trained_on_are_left_out_and_named(tmp_path):
    shards = open_shards(write_shards(tmp_path / "shards.h5", count=8))
    digests = [row.tobytes().hex() for row in shards.sources["sha256"]]
    used = {digest: frozenset({"test"}) for digest in digests[:4]} | {digests[0]: frozenset({"test", "origin"})}
    found = shard_pairs(tmp_path / "shards.h5", "test", used)
    assert len(found.pairs) == 3
    assert found.notes == ("1 test images are left out: what the run began from trained on them",)
    with pytest.raises(ValueError, match="the run, or what it began from, trained on every image of"):
        shard_pairs(tmp_path / "shards.h5", "test", {digest: frozenset({"test", "origin"}) for digest in digests})


def test_the_preset_gives_the_perceptual_loss_ten_times_the_weight():
    from trainers.models.disentangled import Disentangled

    plain, crossed = (Disentangled.Config(**Disentangled.presets[name]).weights for name in ("default", "cross-domain"))
    assert crossed == plain | {"perceptual": 1.0, "perceptual_random": 1.0}
    assert plain["perceptual"] == 0.1


def test_a_frozen_blur_encoder_has_no_loss_of_its_own():
    from trainers.models.disentangled import DisentangledConfig

    free, held = DisentangledConfig().weights, DisentangledConfig(freeze_blur_encoder=True).weights
    assert set(free) - set(held) == {"kl"}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_begins_from_its_own_state_and_weights(name, tmp_path):
    source = tiny(name, seed=0)
    for parameter in source.averaged.parameters():
        parameter.data += 0.1
    States(tmp_path).save(1, {"method": source.state(), "identity": {"system": name, **as_values(source.config)}})
    save_weights(tmp_path / "last.safetensors", source, {"step": 1})
    whole, part = (tiny(name, seed=1) for _ in range(2))
    begin(whole, RunOptions(init_from=tmp_path))
    assert equal(whole.networks.state_dict(), source.networks.state_dict())
    assert equal(whole.averaged.state_dict(), source.restorer.state_dict())
    begin(part, RunOptions(init_from=tmp_path / "last.safetensors"))
    assert equal(part.restorer.state_dict(), source.averaged.state_dict())
