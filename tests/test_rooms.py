"""The rules of the house: imports run downward, and each library lives in one room."""

import ast

import pytest
from conftest import ROOT

PACKAGE = ROOT / "dcgan_jax"

# Each module may import those of lower levels only; within a level, none.
LEVELS = [
    {"errors", "lock", "stop", "winograd", "compilation", "heap"},
    {"config", "conv"},
    {"models", "latent", "data", "collapse"},
    {"losses", "state"},
    {"steps", "parallel", "agreement", "checkpoint", "calibration"},
    {"interop"},
    {"monitor", "inference", "calls", "evaluation"},
    {"interpret"},
    {"workdir"},
    {"train"},
]


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


def room(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def level(name):
    return next(i for i, names in enumerate(LEVELS) if name in names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    for name in imports(path):
        if not name.startswith("dcgan_jax.") or name == "dcgan_jax.__version__":
            continue
        target = name.split(".")[1]
        assert target == room(path) or level(target) < level(room(path)), f"{path.name} imports {name}"


def users_of(library):
    folders = (PACKAGE, ROOT / "launch", ROOT / "configs")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return {
        path.relative_to(ROOT).as_posix()
        for path in files
        if any(f"{name}.".startswith(f"{library}.") for name in imports(path))
    }


def test_each_library_has_one_room():
    assert users_of("orbax") == {"dcgan_jax/checkpoint.py"}
    assert users_of("absl.flags") == {path.relative_to(ROOT).as_posix() for path in (ROOT / "launch").glob("*.py")}
    assert users_of("tensorflow_datasets") == users_of("tensorflow") == {"dcgan_jax/data/tfds.py"}
    assert users_of("lmdb") == {"dcgan_jax/data/lsun.py"}
    assert users_of("configs") == users_of("launch") == set()


def names(path):
    """Every name and attribute in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name | ast.alias):
            yield node.id if isinstance(node, ast.Name) else node.name


def test_pmap_is_in_parallel_alone():
    assert {path.name for path in modules() if "pmap" in set(names(path))} == {"parallel.py"}


def test_nothing_is_loaded_that_can_run_code():
    for path in modules():
        assert not {"pickle", "dill", "joblib", "cloudpickle"} & set(names(path)), path
        assert "allow_pickle=True" not in path.read_text().replace(" ", ""), path


def test_public_functions_say_what_they_do():
    for path in modules():
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
