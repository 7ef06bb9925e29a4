"""How the explorer bears many people: python benchmarks/explore_load.py --url=http://127.0.0.1:7860 [--pid=PID]

Start `python launch/explore.py --workdir=DIR` first. Each client has a session of its own, and asks for one thing after
another, without a pause: new samples, a walk, arithmetic, a direction. It prints errors and times from request to
answer, the wait in the queue included; with --pid, of the server, its memory over time. One client alone comes first,
which also compiles what is not compiled yet.
"""

import argparse
import itertools
import statistics
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from gradio_client import Client

REQUESTS = ("sheet", "walk", "arithmetic", "direction")
MOST = 100_000  # requests in all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pid", type=int, help="of the server, to read its memory (Linux)")
    options = parser.parse_args()
    for clients, seconds in ((1, 10), (options.clients, options.seconds)):
        load = Load(options.url, clients, options.pid)
        load.run(seconds)
        load.report(f"{clients} client{'s' if clients > 1 else ''}, {seconds:g} seconds")


class Load:
    """Clients that ask at the same time."""

    def __init__(self, url: str, clients: int, pid: int | None):
        self.clients = [
            Client(url, verbose=False, download_files=False, analytics_enabled=False) for _ in range(clients)
        ]
        described = self.clients[0].view_api(return_format="dict", print_info=False)["named_endpoints"]["/sheet"]
        step, _, classes, *_ = described["parameters"]
        self.newest, self.label = step["parameter_default"], (classes["type"].get("enum") or [None])[0]
        self.pid = pid
        self.times: dict[str, list[float]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        self.memory: list[float] = []

    def run(self, seconds: float) -> None:
        """Lets all clients ask for so long; an answer that is under way then is waited for."""
        deadline = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self._ask, args=(client, number, deadline), daemon=True)
            for number, client in enumerate(self.clients)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < deadline:
            self.memory.append(_memory(self.pid))
            time.sleep(1)
        for thread in threads:
            thread.join(120)
        self.memory.append(_memory(self.pid))

    def report(self, title: str) -> None:
        everything = list(itertools.chain(*self.times.values()))
        print(f"{title}: {len(everything)} answers, {sum(self.errors.values())} errors {dict(self.errors) or ''}")
        for name, times in (*self.times.items(), ("all", everything)) if everything else ():
            p50, p95 = np.percentile(times, [50, 95])
            print(f"  {name:10}  {len(times):6}  p50 {p50:.3f} s  p95 {p95:.3f} s  longest {max(times):.3f} s")
        if self.pid:
            third = max(1, len(self.memory) // 3)
            parts = [statistics.mean(self.memory[start : start + third]) for start in (0, third, 2 * third)]
            print(f"  memory of the server, MB, mean of each third: {', '.join(f'{part:.0f}' for part in parts)}")

    def _ask(self, client: Client, number: int, deadline: float) -> None:
        random = np.random.default_rng(number)
        for i in range(MOST // len(self.clients)):
            began = time.monotonic()
            if began > deadline:
                break
            name = REQUESTS[i % len(REQUESTS)]
            try:
                client.predict(*self._arguments(name, random), api_name=f"/{name}")
                self.times[name].append(time.monotonic() - began)
            except Exception as error:  # whatever goes wrong is what is counted
                self.errors[f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"] += 1

    def _arguments(self, name: str, random: np.random.Generator) -> list:
        """What a request takes: the newest checkpoint, another seed, samples in each tray."""
        a, b, c = (", ".join(map(str, random.choice(36, 3, replace=False).tolist())) for _ in range(3))
        return {
            "sheet": [self.newest, int(random.integers(2**31)), self.label, 36, "", "", ""],
            "walk": [a, b, "", "arc", 16],
            "arithmetic": [a, b, c],
            "direction": [a, b, c, float(random.uniform(-2, 2))],
        }[name]


def _memory(pid: int | None) -> float:
    """Megabytes that a process has in memory."""
    if pid is None:
        return 0.0
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
