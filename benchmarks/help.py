"""How long each launcher takes to answer --help, as a multiple of the time that Python takes to do nothing.

    python benchmarks/help.py [--repeats=5] [--json=FILE]

Each number is the median over pairs of processes that run one after the other: python launch/NAME.py --help, and
python -c pass. The ratio depends little on the machine and on what else it does, the processor time even less.
dcgan-jax --help is measured too.
"""

import os
import statistics
import subprocess
import sys
import time

import measure
from measure import ROOT

COMMAND = ("-c", "from dcgan_jax.runtime.command import main; main()")  # dcgan-jax


def seconds(*arguments: str) -> tuple[float, float]:
    """The time of a Python process, and its processor time."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, used


def row(name: str, program: tuple[str, ...], repeats: int) -> measure.Row:
    """The times of a program's answer and of an empty one, and the median ratio of the pairs."""
    seconds(*program, "--help")  # reads its files from the disk
    pairs = [(seconds(*program, "--help"), seconds("-c", "pass")) for _ in range(repeats)]
    return {
        "launcher": name,
        "help_s": statistics.median(answer[0] for answer, _ in pairs),
        "help_cpu_s": statistics.median(answer[1] for answer, _ in pairs),
        "python_s": statistics.median(empty[0] for _, empty in pairs),
        "ratio": statistics.median(answer[0] / empty[0] for answer, empty in pairs),
    }


def main() -> None:
    options = measure.plain_parser(__doc__, repeats=5).parse_args()
    launchers = [path for path in sorted((ROOT / "launch").glob("*.py")) if "cli.run(" in path.read_text()]
    programs = {f"launch/{path.name}": (f"launch/{path.name}",) for path in launchers} | {"dcgan-jax": COMMAND}
    measure.report(options, [row(*item, options.repeats) for item in programs.items()])


if __name__ == "__main__":
    main()
