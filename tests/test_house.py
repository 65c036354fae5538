"""The house: who may import whom, what a start-up loads, how long files and functions may be."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import blurgen

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "blurgen").rglob("*.py")) + sorted((ROOT / "trainers").rglob("*.py"))
LINES_A_FILE, LINES_A_FUNCTION = 400, 40

# From the front door to the cellar; a room imports only its own floor and those below.
FLOORS = [
    {"cli"},
    {"doctor", "export", "inspect_shards", "preview", "rerender", "torch"},
    {"backends", "cluster", "card", "pipeline", "plan", "run", "worker", "worker_process"},
    {"recipes", "shards", "sources"},
    {"sample"},
    {"canvas", "convolve", "sparse"},
    {"codes", "imaging"},
    {"kernels"},
    {"maps", "raster", "resample", "words"},
    {"commands", "jit", "lock", "make_options", "options", "progress", "rng", "simd", "slices"},
]
TRAINERS_FLOORS = [
    {"cli"},
    {"bench", "evaluate", "export", "held_out", "photographs", "report", "sizes"},
    {"band_plan", "bands", "infer", "memory", "moments", "rows", "tiles"},
    {"loop"},
    {"checkpoints", "data", "feed", "logs", "lpips", "metrics", "ocr", "rebuilding", "segment"}
    | {"single", "transfer", "validation", "weights"},
    {"models"},
    {"losses", "method", "method_config", "pool"},
    {"nets"},
    {"blocks", "vgg"},
    {"arithmetic", "deblur_options", "eval_options", "infer_options", "noise", "order", "padding", "pictures"}
    | {"pretrained", "processes", "pyramid", "resizing", "run_options", "splits"},
]
PACKAGES = {"blurgen": FLOORS, "trainers": TRAINERS_FLOORS}
FLOOR = {
    (package, room): number
    for package, floors in PACKAGES.items()
    for number, rooms in enumerate(floors)
    for room in rooms
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Yield the dotted names that a file imports, the modules behind ``from package import module`` included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if (ROOT / Path(*full.split("."))).with_suffix(".py").exists() else node.module


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_downward(path):
    own, room = (*module_name(path).split("."), "")[:2]
    for name in imports(path):
        package, target = (*name.split("."), "")[:2]
        assert (own, package) != ("blurgen", "trainers")
        if room in ("", "__main__") or package not in PACKAGES:
            continue
        assert target != "cli", f"{room} may not import a command line"
        if package == own and (package, target) in FLOOR:
            assert FLOOR[package, target] >= FLOOR[own, room], f"{room} may not import {target}"


def test_every_room_has_a_floor():
    rooms = {tuple(module_name(path).split(".")[:2]) for path in FILES if "." in module_name(path)}
    assert rooms - {(package, "__main__") for package in PACKAGES} == set(FLOOR)


def test_only_one_file_of_blurgen_imports_torch():
    files = [path for path in FILES if path.is_relative_to(ROOT / "blurgen")]
    importing = {path.name for path in files if any(name.split(".")[0] == "torch" for name in imports(path))}
    assert importing == {"torch.py"}


def loaded_by(statement):
    shown = subprocess.run(
        [sys.executable, "-c", f"{statement}; import sys; print(*sorted(sys.modules))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return set(shown.stdout.split())


@pytest.mark.parametrize("statement", ["import blurgen", "import blurgen.cli", "import trainers.cli"])
def test_start_up_loads_nothing_heavy(statement):
    assert not loaded_by(statement) & {"numpy", "numba", "torch", "h5py", "cv2", "scipy", "matplotlib", "PIL", "joblib"}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            length = body[-1].end_lineno - body[0].lineno + 1
            assert length <= LINES_A_FUNCTION, f"{node.name} has {length} lines"


def test_public_names_resolve_and_hide_behind_no_module():
    for name in blurgen.__all__:
        assert getattr(blurgen, name) is not None
        assert not (ROOT / "blurgen" / f"{name}.py").exists()
    assert blurgen.blur.__module__ == "blurgen.convolve"


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'blurr'"):
        _ = blurgen.blurr


def test_datasets_hold_no_code():
    assert not [path for path in (ROOT / "datasets").rglob("*") if path.suffix != ".toml"]


@pytest.mark.parametrize("table", ["blurgen.kernels:KERNELS", "blurgen.sources:READERS"])
def test_tables_name_what_exists(table):
    for target in pkgutil.resolve_name(table).values():
        assert isinstance(pkgutil.resolve_name(target), type)
