"""Starting from another run: what is taken over, what is recorded, and that nothing of it is needed later."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from toy_system import job, read_state, states, train_here, write_shards

from trainers.loop import build_method
from trainers.transfer import begin, read_origin

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
    shutil.copytree("sft", "straight")
    train_here("as-cyclegan", steps=2, init_from="v2", **values)
    shutil.rmtree("v2")
    train_here("as-cyclegan", steps=3, init_from="v2", **values)
    train_here("as-cyclegan", steps=4, **values)
    train_here("as-cyclegan", steps=4, **{**values, "out": "straight"})
    ours, theirs = (read_state("00000004.pt", run)["method"]["networks"] for run in ("sft", "straight"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert read_state("00000004.pt", "sft")["identity"]["init_from"] == said


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
        ("as-cyclegan", {"width": 4}, r"v2: .* has no place here: .*; that run has width 2 \(here 4\)$"),
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


def test_a_file_of_a_state_gives_that_state(here):
    train_here("as-cyclegan", steps=4, **V2)
    older, _ = states("v2")
    expected = read_state(older, "v2")["method"]["networks"]["generator_sharp.encoder.1.weight"]
    given = read_origin(job("as-cyclegan", init_from=f"v2/states/{older}").options.init_from)
    assert torch.equal(given.networks["generator_sharp.encoder.1.weight"], expected)
    newest = read_origin(job("as-cyclegan", init_from="v2").options.init_from)
    assert not torch.equal(newest.networks["generator_sharp.encoder.1.weight"], expected)
