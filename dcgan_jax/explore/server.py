"""Serves the page: on one address, without telemetry, with temporary files that go when it ends."""

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcgan_jax.explore import limits
from dcgan_jax.explore.explorer import Explorer
from dcgan_jax.explore.results import Results
from dcgan_jax.runtime.errors import UserError

MAX_WAITING = 64  # requests; more are refused
MAX_SESSIONS = 256  # whose state is kept
MAX_UPLOAD = 1  # bytes: the page takes no files


def check(host: str, port: int) -> None:
    """Raises UserError if Gradio is missing, or nothing can listen there; to be called before a network is loaded."""
    try:
        _import()
    except ImportError as error:
        raise UserError(
            "gradio: not installed, but the explorer needs it; pip install --editable '.[explore]'"
        ) from error
    _check_address(host, port)


@contextmanager
def serving(explorer: Explorer, host: str, port: int) -> Iterator[str]:
    """Serves an explorer's page while the block runs, at the address that it gives.

    Raises UserError as `check` does.
    """
    check(host, port)
    with tempfile.TemporaryDirectory(prefix="dcgan_jax_explore_", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # Gradio reads it when widgets are made
        from starlette.middleware import Middleware

        from dcgan_jax.explore import page

        blocks = page.build(explorer, Results(Path(folder).resolve()))
        blocks.queue(max_size=MAX_WAITING, api_open=False, default_concurrency_limit=1)
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                show_error=True,  # otherwise a script is not told why
                prevent_thread_lock=True,
                state_session_capacity=MAX_SESSIONS,
                max_file_size=MAX_UPLOAD,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                footer_links=[],
                app_kwargs={"middleware": [Middleware(limits.Limited)]},
                css=page.CSS,
                theme=page.theme(),
            )
            yield address
        finally:
            blocks.close(verbose=False)


def _import() -> None:
    """Imports Gradio without the telemetry that it and its libraries have by default."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio  # noqa: F401


def _check_address(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(
                f"--port: found {port}, which cannot be used at {host} ({error.strerror}), expected a free port; pass "
                "another --port"
            ) from error
        raise UserError(
            f"--host: found {host!r} ({error}), expected an address of this machine, such as 127.0.0.1; pass another "
            "--host"
        ) from error
