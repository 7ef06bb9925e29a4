"""The rules of the house: imports run downward, each library lives in one room, and the root shows the science."""

import ast

import pytest
from conftest import ROOT

PACKAGE = ROOT / "dcgan_jax"

# What may import what: each line only the lines above it, and within a room its own files. A room is a folder; files of
# a room that lie on another level than the rest of it are named.
LEVELS = [
    {
        "runtime.errors",
        "runtime.versions",
        "runtime.signals",
        "runtime.collector",
        "runtime.compile_cache",
        "runtime.compile_times",
        "runtime.malloc",
        "runtime.progress",
    },
    {"runtime.files", "ops.dtypes", "ops.pixels", "ops.chunks", "ops.winograd", "latent", "augment"},
    {"runtime", "fields", "ops", "run.trees", "run.damage", "run.best"},
    {"config"},
    {"models", "losses", "data", "optimizers"},
    {"state"},
    {"steps", "run.checkpoint", "run.places", "run.weights"},
    {"inference"},
    {"interop"},
    {"evaluation"},
    {"interpret", "run"},
    {"explore", "page"},
    {"train"},
]
ROOT_FILES = (
    *("__init__", "augment", "config", "fields", "inference", "latent", "losses", "models", "optimizers", "state"),
    *("steps", "train"),
)


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path):
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(dotted):
    """Of 'room.file...': by the file if it is named, otherwise by its room."""
    parts = dotted.split(".")
    names = (".".join(parts[:2]), parts[0])
    return next(i for name in names for i, level in enumerate(LEVELS) if name in level)


def dotted_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", modules(), ids=dotted_name)
def test_imports_run_downward(path):
    own = dotted_name(path)
    for name in imports(path):
        if not name.startswith("dcgan_jax.") or name == "dcgan_jax.__version__":
            continue
        target = name.removeprefix("dcgan_jax.")
        same_room = target.split(".")[0] == own.split(".")[0]
        assert level(target) < level(own) or (same_room and level(target) == level(own)), f"{own} imports {target}"


def test_the_root_shows_the_science():
    assert sorted(path.stem for path in PACKAGE.glob("*.py")) == sorted(ROOT_FILES)
    science = ("augment", "latent", "losses", "models", "optimizers", "state", "steps")
    assert sum(len((PACKAGE / f"{name}.py").read_text().splitlines()) for name in science) < 1250


def users_of(library):
    folders = (PACKAGE, ROOT / "launch", ROOT / "configs")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return {
        path.relative_to(ROOT).as_posix()
        for path in files
        if any(f"{name}.".startswith(f"{library}.") for name in imports(path))
    }


def test_each_library_has_one_room():
    assert users_of("orbax") == {"dcgan_jax/run/checkpoint.py"}
    assert users_of("absl.flags") == {path.relative_to(ROOT).as_posix() for path in (ROOT / "launch").glob("*.py")}
    assert users_of("tensorflow_datasets") == users_of("tensorflow") == {"dcgan_jax/data/sources/tfds.py"}
    assert users_of("safetensors") == {"dcgan_jax/runtime/safetensors_file.py"}
    assert users_of("onnx") == {"dcgan_jax/interop/onnx_file.py"}
    assert users_of("lmdb") == {"dcgan_jax/data/sources/lsun.py"}
    assert users_of("pyarrow") == {"dcgan_jax/data/sources/tables.py"}
    assert users_of("huggingface_hub") == {"dcgan_jax/runtime/hub.py"}
    assert users_of("gradio") == {"dcgan_jax/explore/page.py", "dcgan_jax/explore/server.py"}
    assert users_of("plotly") == users_of("jinja2") == {"dcgan_jax/page/document.py"}
    assert users_of("filelock") == {"dcgan_jax/runtime/files.py"}
    assert users_of("configs") == users_of("launch") == set()


def names(path):
    """Every name and attribute in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name | ast.alias):
            yield node.id if isinstance(node, ast.Name) else node.name


def test_pmap_is_in_devices_alone():
    assert {dotted_name(path) for path in modules() if "pmap" in set(names(path))} == {"runtime.devices"}


# One concept, one room: what gives another place away, and the files that may say it.
CONCEPTS = {
    "127.5": {"ops.pixels", "run.collapse"},
    "os.fsync": {"runtime.files", "run.monitor", "data.decoding", "data.preparation"},  # in place, not atomically
    "FileLock": {"runtime.files"},
    "hashlib": {"runtime.files", "runtime.versions", "run.trees", "data"},
}


@pytest.mark.parametrize("text", CONCEPTS)
def test_each_concept_has_one_room(text):
    users = {dotted_name(path) for path in modules() if text in path.read_text()}
    odd = {name for name in users if name not in CONCEPTS[text] and name.split(".")[0] not in CONCEPTS[text]}
    assert not odd


def test_nothing_is_loaded_that_can_run_code():
    for path in modules():
        assert not {"pickle", "dill", "joblib", "cloudpickle"} & set(names(path)), path
        assert "allow_pickle=True" not in path.read_text().replace(" ", ""), path


def test_files_and_functions_are_short():
    long = {}
    for path in modules():
        text = path.read_text()
        if text.count("\n") > 300:
            long[dotted_name(path)] = text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long[f"{dotted_name(path)}.{node.name}"] = node.end_lineno - node.lineno + 1
    assert not long


def test_public_functions_say_what_they_do():
    for path in modules():
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
