"""Files of torch.save (golden/torch_*.pth) are read without PyTorch and without running code."""

import argparse
import collections
import datetime
import io
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from dcgan_jax.interop import pickle_machine, torch_file
from dcgan_jax.interop.pickle_machine import Unreadable
from dcgan_jax.runtime.errors import UserError

GOLDEN = ROOT / "tests" / "golden"
LAYOUTS = ("torch_archive.pth", "torch_stream.pth")


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_was_saved_is_read(name):
    content = torch_file.read(GOLDEN / name)
    shared = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_allclose(content["a.weight"], [[1.5410, -0.2934, -2.1788], [0.5684, -1.0845, -1.3986]], atol=1e-4)
    assert content["half"].dtype == np.float16
    np.testing.assert_array_equal(content["brain"], np.float32([1.5, -2.25]))
    assert content["brain"].dtype == np.float32
    assert content["long"].shape == ()
    assert content["long"] == 7
    np.testing.assert_array_equal(content["turned"], shared.T)
    np.testing.assert_array_equal(content["row"], shared[1])
    assert content["flags"].tolist() == [True, False]
    assert content["empty"].shape == (0, 3)
    assert content["param"].tolist() == [1, 1]
    assert content["nested"] == {"epoch": 3, "lr": 0.5, "names": ["x", "y"], "nothing": None}


class Trap:
    """An object that is pickled as a function call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def archive(tmp_path, content, **entries):
    file = tmp_path / "file.pth"
    with zipfile.ZipFile(file, "w") as writer:
        writer.writestr("file/data.pkl", content)
        for name, value in entries.items():
            writer.writestr(f"file/{name}", value)
    return file


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_nothing_in_a_file_is_run(tmp_path, protocol):
    ran = tmp_path / "ran"
    trap = pickle.dumps({"weight": Trap(open, str(ran), "w")}, protocol)
    file = tmp_path / "stream.pth"
    file.write_bytes(trap)
    for path in (archive(tmp_path, trap), file):
        with pytest.raises(UserError, match="cannot be read"):
            torch_file.read(path)
    assert not ran.exists()


def test_a_call_is_named(tmp_path):
    with pytest.raises(UserError, match="it would call '__builtin__ eval'"):
        torch_file.read(archive(tmp_path, pickle.dumps({"weight": Trap(eval, "1")}, 2)))


def test_lists_that_hold_themselves_end(tmp_path):
    itself = []
    itself.append(itself)
    with pytest.raises(UserError):
        torch_file.read(archive(tmp_path, pickle.dumps({"weight": itself}, 2)))


def test_lists_of_lists_take_no_time(tmp_path):
    many = ["ha"]
    for _ in range(60):  # 2^60 strings, if each were converted separately
        many = [many, many]
    assert len(torch_file.read(archive(tmp_path, pickle.dumps({"weight": many}, 2)))["weight"]) == 2


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_damaged_file_is_refused_or_read(tmp_path, name):
    content = (GOLDEN / name).read_bytes()
    rng = np.random.default_rng(0)
    file = tmp_path / "damaged.pth"
    whole = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged if rng.random() < 0.5 else damaged[: rng.integers(len(content))])
        with suppress(UserError):  # and nothing else is ever raised
            torch_file.read(file)
            whole += 1
    assert whole < 150  # most damage is noticed; a changed number in an array cannot be


def test_a_tensor_beyond_its_numbers_is_refused(tmp_path):
    tensor = torch_file.Tensor(torch_file.Storage("0", np.float32, 4), 1, (2, 2), (2, 1))
    with pytest.raises(torch_file.Unreadable, match="does not fit"):
        torch_file._array(tensor, np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "cannot be read"), (b"text", "cannot be read"), (pickle.dumps([1], 2), "cannot be read")],
)
def test_what_is_no_such_file(tmp_path, content, expected):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match=expected):
        torch_file.read(tmp_path / "file")
    with pytest.raises(UserError, match="does not exist"):
        torch_file.read(tmp_path / "absent")


def test_the_archive_must_hold_a_dictionary(tmp_path):
    with pytest.raises(UserError, match="it holds a list"):
        torch_file.read(archive(tmp_path, pickle.dumps([1], 2)))
    other = io.BytesIO()
    zipfile.ZipFile(other, "w").close()
    (tmp_path / "empty.zip").write_bytes(other.getvalue())
    with pytest.raises(UserError, match="0 entries"):
        torch_file.read(tmp_path / "empty.zip")


class Net:
    """Pickled as a module is: a new object of its class, then its attributes."""

    def __init__(self):
        self.training, self._modules, self._non_persistent_buffers_set = False, {}, set()
        self.function = Trap(print, "other attributes may need calls")


def stream(*contents):
    """The older layout; as PyTorch did, a module's class is kept outside of the pickle, with its source."""
    seen = set()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if obj is not Net or obj in seen:
                return None
            seen.add(obj)
            return "module", obj, "nets.py", "class Net: ..."

    buffer = io.BytesIO()
    for content in (torch_file.MAGIC, 1001, {"little_endian": True}, *contents, []):
        Pickler(buffer, 2).dump(content)
    return buffer.getvalue()


def test_a_whole_module_is_refused_with_the_way_out(tmp_path):
    old = tmp_path / "old.pth"
    old.write_bytes(stream(Net()))
    for file in (archive(tmp_path, pickle.dumps(Net(), 2)), old):
        with pytest.raises(UserError, match=rf"a whole module \({__name__}\.Net\)") as error:
            torch_file.read(file)
        assert f"net = torch.load({str(file)!r}, weights_only=False); torch.save(net.state_dict()," in str(error.value)


def test_objects_in_a_checkpoint_are_left_out(tmp_path):
    content = {"args": argparse.Namespace(lr=2e-4, net="dcgan"), "epoch": 3}
    old = tmp_path / "old.pth"
    old.write_bytes(stream(content))
    for file in (archive(tmp_path, pickle.dumps(content, 2)), old):
        found = torch_file.read(file)
        assert found["epoch"] == 3
        assert found["args"].name == "argparse Namespace"


# What training scripts keep beside weights; pickled, most of it is a call.
BESIDE = {
    "numpy's random state": np.random.RandomState(0).get_state(),
    "a generator's": np.random.default_rng(0).bit_generator.state,
    "a number of numpy's": np.float64(0.5),
    "a path": Path("a/b"),
    "a date": datetime.datetime(2026, 1, 1),
    "a counter of a scheduler": collections.Counter({30: 1}),
    "a dictionary with a default": collections.defaultdict(list, {"losses": [1.0]}),
    "options": argparse.Namespace(betas=(0.5, 0.999), out=Path("out"), gpus={0, 1}),
    "sets": [{1, 2}, frozenset({3})],
    "bytes": [b"abc", bytearray(b"abc")],
    "a large number": 2**80,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_weights_does_not_matter(tmp_path, name, protocol):
    content = {"netG": {"bias": [1, 2]}, "beside": BESIDE[name], "after": {"x": 3}}
    found = torch_file.read(archive(tmp_path, pickle.dumps(content, protocol)))
    assert (found["netG"], found["after"]) == ({"bias": [1, 2]}, {"x": 3})


@pytest.mark.parametrize("call", ["posix system", "builtins eval", "builtins getattr", "torch.hub load", "nets make"])
def test_other_calls_are_refused(call):
    with pytest.raises(Unreadable, match=f"it would call '{call}'"):
        pickle_machine._call(pickle_machine.Name(call), ("x",))


def test_state_dicts_in_a_tuple_have_its_numbers(tmp_path):
    content = {"a": 1}, {"b": 2}
    assert torch_file.read(archive(tmp_path, pickle.dumps(content, 2))) == {"0": {"a": 1}, "1": {"b": 2}}


def test_an_object_that_is_no_module_is_not_called_one(tmp_path):
    with pytest.raises(UserError, match="it holds an object of the kind numpy"):
        torch_file.read(archive(tmp_path, pickle.dumps(np.zeros(3), 2)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 14000000\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><html></html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
        (b"404: Not Found", "a text that begins '404: Not Found'"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        (b"\x1f\x8b" + bytes(99), "gzip"),
        ((GOLDEN / LAYOUTS[0]).read_bytes()[:-30], "end is missing"),
        ((GOLDEN / LAYOUTS[1]).read_bytes()[:-30], "cut short"),
        ((GOLDEN / LAYOUTS[1]).read_bytes()[:40], "cut short"),
    ],
)
def test_what_is_found_in_place_of_weights_is_told_as_what_it_is(tmp_path, content, told):
    (tmp_path / "netG.pth").write_bytes(content)
    with pytest.raises(UserError, match=rf"netG.pth' cannot be read: .*{told}") as error:
        torch_file.read(tmp_path / "netG.pth")
    assert "\n" not in str(error.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        torch_file.read(tmp_path)


@pytest.mark.parametrize("entry", ["constants.pkl", "code/__torch__.py"])
def test_torchscript_is_told_with_the_way_out(tmp_path, entry):
    file = archive(tmp_path, pickle.dumps({}, 2), **{entry: b""})
    with pytest.raises(UserError, match=r"a TorchScript archive .* net = torch.jit.load\('.*file.pth'\); torch.save\("):
        torch_file.read(file)


def test_an_archive_of_other_things_says_of_which(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as writer:
        writer.writestr("weights/netG.pth", b"")
    with pytest.raises(UserError, match=r"0 entries data.pkl among its 1 \(weights/netG.pth\)"):
        torch_file.read(tmp_path / "all.zip")
