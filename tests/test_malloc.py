"""glibc keeps freed memory, unless the user's own settings say otherwise."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from dcgan_jax.runtime import malloc
import numpy as np
if sys.argv[1] == "keep":
    print(malloc.keep_freed_memory())
def use():
    np.ones(2**24)  # 128 MiB, more than any threshold of glibc's own
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(argument, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument], env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only for glibc")
def test_the_same_pages_are_used_again():
    kept, faults = run("keep")
    assert kept == "True"
    assert int(faults) < 100
    (faults,) = run("not")
    assert int(faults) > 100, "the test shows nothing: glibc keeps memory by itself"


def test_the_users_own_settings_stay():
    assert run("keep", MALLOC_ARENA_MAX="2")[0] == "False"
