"""Requests to stop: at once while there is nothing to save, afterwards when the loop has seen them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from dcgan_jax.runtime.signals import StopRequests


@pytest.fixture
def requests():
    requests = StopRequests()
    yield requests
    requests.close()


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python's handler runs between two of its own instructions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_is_noted(requests, number):
    assert requests.name is None
    send(number)
    assert requests.name == signal.Signals(number).name
    send(signal.SIGTERM)
    assert requests.name == signal.Signals(number).name
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_the_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    StopRequests().close()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_another_thread_trains_without_them():
    before, made = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=lambda: made.append(StopRequests()))
    thread.start()
    thread.join()
    assert made[0].name is None
    assert signal.getsignal(signal.SIGTERM) == before


# Sorting a long list is one instruction of Python's, as a compilation is: its own handlers wait for the end of it.
BUSY = """
from dcgan_jax.runtime.signals import StopRequests
requests = StopRequests(exits=True)
if {held}:
    requests.hold()
import random
numbers = [random.random() for _ in range(3_000_000)]
print("busy", flush=True)
for _ in range({rounds}):
    sorted(numbers)
    print(requests.name, flush=True)
"""


def busy(held, rounds):
    program = BUSY.format(held=held, rounds=rounds)
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=-1, stderr=-1, text=True)
    assert process.stdout.readline() == "busy\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_with_nothing_to_save_ends_at_once(number):
    process = busy(held=False, rounds=100)
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 75
    assert told == f"stopped on {signal.Signals(number).name} before the first step\n"


def test_a_launcher_with_something_to_save_goes_on():
    process = busy(held=True, rounds=3)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0].splitlines()[-1] == "SIGTERM"
    assert process.returncode == 0


def test_a_second_ctrl_c_ends_at_once():
    process = busy(held=True, rounds=100)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert told.splitlines()[-1].startswith("interrupted")
