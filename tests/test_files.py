"""Files that are whole or not there at all."""

import pytest

from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import UserError, writable_path


def contents(folder):
    return [(path.name, path.read_text()) for path in folder.iterdir()]


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    files.write_text(path, "old")
    with files.atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old", "what a process killed here leaves behind"
    assert contents(tmp_path) == [("file", "new")]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file"
    files.write_text(path, "old")

    def fail():
        with files.atomic_write(path) as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert contents(tmp_path) == [("file", "old")]


def test_a_free_path_is_beside_what_is_there(tmp_path):
    names = []
    for _ in range(3):
        path = files.free_path(tmp_path / "40")
        path.mkdir()
        names.append(path.name)
    assert names == ["40", "40-1", "40-2"]


def test_one_process_at_a_time_holds_a_lock(tmp_path):
    held = files.lock(tmp_path / "lock", wait=False)
    assert files.lock(tmp_path / "lock", wait=False) is None
    held.__exit__(None, None, None)
    with files.lock(tmp_path / "lock", wait=False):
        assert files.lock(tmp_path / "lock", wait=False) is None
    with files.lock(tmp_path / "lock", wait=True):
        pass


def test_a_line_that_was_cut_short_is_ended_first(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"b"')
    files.append_lines(path, [{"c": 3}])
    assert path.read_text() == '{"a": 1}\n{"b"\n{"c": 3}\n'


def test_a_link_to_something_that_is_not_there_is_told_as_that(tmp_path):
    (tmp_path / "link").symlink_to("gone")
    for path in (tmp_path / "link", tmp_path / "link" / "below"):
        with pytest.raises(
            UserError, match=r"--x: '.*link' is a link to 'gone', which is not there; mend the link, or "
        ):
            writable_path(path, "--x")
    (tmp_path / "gone").mkdir()
    assert writable_path(tmp_path / "link" / "below", "--x") == tmp_path / "link" / "below"
