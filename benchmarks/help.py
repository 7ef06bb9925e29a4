"""How long each launcher takes to answer --help, as a multiple of the time that Python takes to do nothing.

    python benchmarks/help.py [--repeats=5] [--json=FILE]

Each number is the median over pairs of processes that run one after the other: python launch/NAME.py --help, and
python -c pass. The ratio depends little on the machine and on what else it does.
"""

import statistics
import subprocess
import sys
import time

import measure
from measure import ROOT


def seconds(*arguments: str) -> float:
    """The time of a Python process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def row(script: str, repeats: int) -> measure.Row:
    """The times of a launcher's answer and of an empty program, and the median ratio of the pairs."""
    seconds(script, "--help")  # reads its files from the disk
    pairs = [(seconds(script, "--help"), seconds("-c", "pass")) for _ in range(repeats)]
    answer, empty = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "launcher": script,
        "help_s": answer,
        "python_s": empty,
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def main() -> None:
    options = measure.plain_parser(__doc__, repeats=5).parse_args()
    launchers = [path for path in sorted((ROOT / "launch").glob("*.py")) if "cli.run(" in path.read_text()]
    measure.report(options, [row(f"launch/{path.name}", options.repeats) for path in launchers])


if __name__ == "__main__":
    main()
