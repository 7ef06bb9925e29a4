"""Explores a trained generator in a browser: python launch/explore.py --workdir=DIR [--port=7860]

    python launch/explore.py --workdir=runs/digits
    python launch/explore.py --workdir=digits --port=8000

Samples by seed and class, walks, A - B + C, directions, forgetting what is in a box, nearest training images, and
checkpoints side by side; each with its z and the command that makes the picture again. It needs the extra `explore`
(Gradio), is served to this machine alone unless --host says otherwise, and only reads DIR.
"""

import ipaddress
import logging
import queue
import signal

import cli
from absl import flags

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.signals import SIGNALS

WORKDIR = flags.DEFINE_string("workdir", None, "run directory, such as runs/digits, or 'digits', which needs none")
HOST = flags.DEFINE_string("host", "127.0.0.1", "address to serve at; there is no password")
PORT = flags.DEFINE_integer("port", 7860, "port to serve at", 1, 65535)

log = logging.getLogger("dcgan_jax")


def main() -> None:
    from dcgan_jax.explore import server
    from dcgan_jax.runtime import devices

    if not WORKDIR.value:
        raise UserError("--workdir: missing, expected a run directory, such as runs/digits")
    devices.check()
    server.check(HOST.value, PORT.value)
    from dcgan_jax.explore.explorer import Explorer

    asked: queue.SimpleQueue[int] = queue.SimpleQueue()  # not an Event, which two signals at once would lock for ever
    for number in SIGNALS:
        signal.signal(number, lambda number, _: asked.put(number))
    explorer = Explorer(WORKDIR.value)
    with server.serving(explorer, HOST.value, PORT.value) as address:
        if not _is_loopback(HOST.value):
            log.warning("--host: %s is reached by others, who need no password", HOST.value)
        print(f"{address} shows {WORKDIR.value}, step {explorer.newest}; Ctrl-C ends it", flush=True)
        asked.get()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    cli.run(main, __doc__)
