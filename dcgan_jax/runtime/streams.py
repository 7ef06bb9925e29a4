"""The standard streams of a launcher: what is printed to a closed one, or to nobody, is lost without an error.

So is what is printed to a stderr that is full. A full stdout is an error: results may be lost.
"""

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


def open_closed() -> None:
    """Opens the standard streams that were closed before the process began (`2>&-`), on the null device.

    To be called before anything else opens a file: it would get a stream's number, and what libraries print with it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115  # until the process ends


def forgive_closed_pipes() -> None:
    """From now on what is printed for a reader that has left (`| head -1`) is lost, without an error.

    What a stream's encoding lacks is printed by its code.
    """
    for name, pipe in (("stdout", _Pipe), ("stderr", _Errors)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # and not what a test has put there
            setattr(sys, name, _forgiving(stream, pipe))


class _Pipe(io.FileIO):
    forgiven: type[OSError] = BrokenPipeError

    def write(self, content: "bytes | memoryview") -> int | None:  # type: ignore[override]
        try:
            return super().write(content)
        except self.forgiven:
            return len(content)


class _Errors(_Pipe):
    forgiven = OSError  # there is nowhere to tell of it


def _forgiving(stream: io.TextIOWrapper, kind: type[_Pipe]) -> TextIO:
    with suppress(kind.forgiven):
        stream.flush()
    pipe = kind(stream.fileno(), "w", closefd=False)
    unbuffered = isinstance(stream.buffer, io.RawIOBase)  # by python -u
    return io.TextIOWrapper(
        pipe if unbuffered else io.BufferedWriter(pipe),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
