"""How long each command of README.md and docs/ is without any output, through a pipe and on a terminal.

    python benchmarks/silence.py --results=FILE [--only=PATTERN] [--through=pipe,terminal] [--out=FOLDER]

Every command is run in a folder of its own, on small images and short runs (`silence_stand_ins.py`), with the caches of
--out, which are empty at first: the first training there waits for the compiler. Of each, and of each of the two ways
to read it, --results gets a line: the longest time without a byte from its start to its end, what came before that, the
processor time of the process meanwhile (beside others on the machine a process waits), and the last line. Commands that
want hardware, a network or hours have a reason in place of that. Commands with a line are not run again: the same
command goes on where it stopped. At the end there is a table of the longest.
"""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import measure
import silence_stand_ins as stand_ins
from measure import ROOT, Row

sys.path.insert(0, str(ROOT / "docs" / "hooks"))
from commands import LAUNCHER, arguments_of, every

SERVES = b"Ctrl-C ends it"  # a command that says so is ended by it
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def words_of(command: str) -> list[str]:
    """The command line, for a process."""
    if not LAUNCHER.match(command):
        words = shlex.split(command)
        return ["bash", str(ROOT / words[0]), *words[1:]]
    file, arguments = arguments_of(stand_ins.shortened(command))
    if not file:
        return [sys.executable, "-c", "from dcgan_jax.runtime.command import main; main()", *arguments]
    return [sys.executable, str(ROOT / file), *(arguments or ["--help"])]


def processor_seconds(pid: int) -> float:
    """What a process has computed so far; 0 if the system does not tell."""
    try:
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def listen(words: list[str], folder: Path, base: Path, terminal: bool, limit: float) -> Row:
    """Runs a command to its end, or to Ctrl-C after `limit` seconds, and says when it was silent."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:  # a bar shows nothing where there are no columns
        termios.tcsetwinsize(theirs, (40, 120))
    began = time.monotonic()
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=stand_ins.environment(base) | ({"TERM": "xterm", "COLUMNS": "120"} if terminal else {}),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    heard, last, computed, interrupted = b"", began, 0.0, False
    longest: Row = {"silent_s": 0.0}
    while True:
        ready, _, _ = select.select([ours], [], [], 1.0)
        if not ready:
            if not interrupted and time.monotonic() - began > limit:
                interrupted = True
                os.killpg(process.pid, signal.SIGINT)
            continue
        now, used = time.monotonic(), processor_seconds(process.pid)
        try:
            block = os.read(ours, 2**16)
        except OSError:  # the end of a terminal
            block = b""
        if now - last > longest["silent_s"]:
            longest = {
                "silent_s": round(now - last, 1),
                "silent_from": round(last - began, 1),
                "processor_s": round(max(used - computed, 0.0), 1),
                "after": last_line(heard),
            }
        if not block:
            break
        heard, last, computed = heard + block, now, used
        if SERVES in heard and not interrupted:
            interrupted = True
            os.killpg(process.pid, signal.SIGINT)
    os.close(ours)
    code = process.wait()
    (folder.parent / f"{folder.name}.log").write_bytes(heard)
    row = {"code": code, "seconds": round(time.monotonic() - began, 1), **longest, "last_line": last_line(heard)}
    return row | ({"interrupted": True} if interrupted else {})


def last_line(heard: bytes) -> str:
    """The last line that a reader sees."""
    lines = re.split(r"[\r\n]+", ESCAPES.sub("", heard.decode(errors="replace")))
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


def main() -> None:
    parser = measure.plain_parser(__doc__, only="", through="pipe,terminal", limit=900.0)
    parser.add_argument("--results", type=Path, required=True, help="file of one JSON object a line")
    parser.add_argument("--out", type=Path, default=Path("silence"), help="folder for all that commands need and write")
    options = parser.parse_args()
    known = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    done = {(row["command"], row["through"]) for row in known}
    base = (options.out / "base").resolve()
    commands = list(dict.fromkeys(command for command, _ in every()))
    wanted = [command for command in commands if re.search(options.only, command)]
    for number, through in ((n, through) for n in range(len(wanted)) for through in options.through.split(",")):
        command = wanted[number]
        if (command, through) in done:
            continue
        row = {"command": command, "through": through}
        if reason := stand_ins.reason_to_skip(command):
            row["skipped"] = reason
        else:
            base.mkdir(parents=True, exist_ok=True)
            stand_ins.make(base)
            folder = options.out.resolve() / "commands" / f"{commands.index(command):03}_{through}"
            stand_ins.folder_for(command, base, folder)
            row |= listen(words_of(command), folder, base, through == "terminal", options.limit)
            row["load"] = round(os.getloadavg()[0], 1)
        known.append(row)
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    heard = sorted((row for row in known if "silent_s" in row), key=lambda row: -row["silent_s"])
    shown = ("silent_s", "processor_s", "through", "command", "after")
    measure.report(options, [{name: row[name] for name in shown} for row in heard[:10]])


if __name__ == "__main__":
    main()
