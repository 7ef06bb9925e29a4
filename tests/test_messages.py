"""Messages name flags and fields that exist where they are printed; `conftest.call` checks what launchers print."""

import ast
import functools

import pytest
from conftest import ROOT, named

from dcgan_jax.fields import default_of
from dcgan_jax.runtime.errors import UserError, rename_fields

LAUNCHERS = {path.stem: path for path in (ROOT / "launch").glob("*.py")}
# Of modules that several launchers import, what only those print that have the flag.
OF_ONE_FUNCTION = {
    ("cli", "NAME"),
    ("cli", "help_config"),  # asked for, with a configuration
    ("cli", "workdir"),  # run_directory
    ("evaluation.evaluate", "images"),  # from_image_sets
    ("evaluation.evaluate", "features"),
    ("evaluation.inception_weights", "file"),  # renamed there
    ("interop.torch_file", "file"),  # renamed by inception_weights
    ("cli", "out"),  # output
    ("cli", "config"),  # where a launcher has it
    ("interop.state_dicts", "file"),  # imports
    ("interop.torch_networks", "file"),
    ("interop.torch_networks", "key"),
    ("interop.torch_networks", "workdir"),  # exports
    ("runtime.command", "config"),  # of the command itself
    ("runtime.command", "FLAG"),
    ("runtime.command", "version"),
    ("runtime.command", "workdir"),
    ("interpret.forget", "boxes"),  # explore.page takes the dashes away
    ("interpret.forget", "layer"),
    ("interpret.forget", "num"),
    ("interpret.arithmetic", "exemplars"),  # exemplars, contact_sheet
    ("page.settings", "config"),  # of the command that a page shows
    # Training tells what sample.py and others take.
    ("run.hooks", "step"),
    ("run.reporter", "step"),
    ("run.collapse", "step"),
}


def test_fields_are_renamed_in_text_and_advice():
    names = {"config.data": "--data", "config.data.path": "--data", "config.data.source": "", "config.data.test": "x.y"}
    for told, expected in (
        (
            "config.data.path: 'config.data.paths'; pass --config.data.path=FOLDER.",
            "--data: 'config.data.paths'; pass --data=FOLDER.",
        ),
        ("config.data: none", "--data: none"),
        ("config.data.source: none", "config.data.source: none"),
        ("or --config.data.source=tfds --config.data.path=a", "or --data=a"),
        ("config.data.test: pass --config.data.test=..., or", "x.y: pass --x.y=..., or"),
        (
            "config.data.path: python launch/prepare.py --config.data.path=b, or --config.data.path=c",
            "--data: python launch/prepare.py --config.data.path=b, or --data=c",
        ),
    ):
        with pytest.raises(UserError) as raised, rename_fields(names):
            raise UserError(told)
        assert str(raised.value) == expected


def strings(path):
    """The texts of a file without docstrings."""
    tree = ast.parse(path.read_text())
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


@functools.cache
def imports(path):
    """The files of the package and of launch/ that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            place = ROOT / name.replace(".", "/")
            found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()}
            found |= {LAUNCHERS[name]} if name in LAUNCHERS else set()
    return found - {ROOT / "dcgan_jax" / "__init__.py"}


def imported(launcher):
    """The files that it imports, and those that these import, and itself."""
    found, waiting = set(), {launcher}
    while waiting:
        found |= waiting
        waiting = {file for path in waiting for file in imports(path)} - found
    return found


def flags_of(launcher):
    """The names of its flags, and of those modules in launch/ that it imports."""
    found = {"help"}
    for path in imported(launcher) & set(LAUNCHERS.values()):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and "DEFINE" in ast.unparse(node.func):
                found |= {arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)}
    return found


@pytest.mark.parametrize("name", sorted(set(LAUNCHERS) - {"cli", "configuration", "image_sets", "processes"}))
def test_messages_name_flags_of_each_launcher_that_can_print_them(name):
    """Fields, --config.KEY, are renamed by launchers without --config; any other flag must be one of the launcher's."""
    own, unknown = flags_of(LAUNCHERS[name]), []
    for path in imported(LAUNCHERS[name]):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])
        for text in strings(path) if module != "fields" else ():  # whose text is documentation
            for flag, field in named(text):
                if field:
                    default_of(field)
                elif flag not in own and (module, flag) not in OF_ONE_FUNCTION:
                    unknown.append(f"{module}: --{flag} in {text!r}")
    assert not unknown, "\n".join(unknown)
