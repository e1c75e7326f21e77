import os
import subprocess
import sys
from mmap import mmap

import pytest
import torch

from geosr.models.hardware import (
    FreedMemory,
    PeakMemory,
    keep_freed_memory,
    native_bf16,
    pick_device,
    subnormals_flushed,
)


@pytest.fixture
def pretend(monkeypatch):
    """A function that makes torch say which accelerators there are."""

    def pretend(*, cuda=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("there", "picked"),
    [({}, "cpu"), ({"cuda": True}, "cuda"), ({"mps": True}, "mps"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_is_the_fastest_device_there_is(pretend, there, picked):
    pretend(**there)
    assert pick_device("auto").type == picked


@pytest.mark.parametrize("there", [{}, {"cuda": True}])
def test_a_device_that_is_named_is_taken(pretend, there):
    pretend(**there)
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert pick_device(torch.device("mps")).type == "mps"


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_a_cpu_multiplies_bfloat16_when_it_has_the_instructions(monkeypatch, avx512, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert native_bf16("cpu") is (avx512 or amx)


@pytest.mark.parametrize("native", [False, True])
def test_a_gpu_that_only_emulates_bfloat16_does_not_count(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert native_bf16("cuda") is native


def test_on_apple_hardware_float32_is_faster():
    assert native_bf16("mps") is False


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_a_system_without_glibc_is_left_alone(monkeypatch, error):
    def missing(name):
        raise error(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    keep_freed_memory()
    FreedMemory().release()


def flushes():
    return bool(torch.tensor(1e-40) * 1 == 0)


@pytest.mark.parametrize("before", [False, True])
def test_subnormal_numbers_are_zero_inside_the_block_and_then_what_they_were(before):
    if not torch.set_flush_denormal(before):
        pytest.skip("this CPU cannot flush subnormal numbers")
    try:
        with subnormals_flushed():
            assert flushes()
        assert flushes() is before
        with pytest.raises(RuntimeError), subnormals_flushed():
            raise RuntimeError
        assert flushes() is before
    finally:
        torch.set_flush_denormal(False)


def test_threads_that_are_started_flush_subnormal_numbers_and_this_one_does_not():
    """In a process of its own, whose threads nobody started before."""
    script = """
import torch
from geosr.models.hardware import start_threads
torch.set_num_threads(2)
start_threads()
flushed = torch.full((2**20,), 1e-40) * 1 == 0
assert flushed[: 2**19].sum() == 0, "the thread that asks"
print(bool(flushed[2**19 :].all()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "False":
        pytest.skip("this build of PyTorch does not share work with threads of OpenMP, or the CPU cannot flush")


def test_memory_goes_back_once_the_process_has_grown_by_a_twentieth(monkeypatch):
    trims = []
    libc = type("Libc", (), {"malloc_trim": lambda _, pad: trims.append(pad)})()
    monkeypatch.setattr("ctypes.CDLL", lambda name: libc)
    pages = iter([1000, 1050, 1051, 900])
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: f"5000 {next(pages)} 3 2 1 0 0")
    freed, after = FreedMemory(), []
    for _ in range(4):
        freed.release()
        after.append(len(trims))
    assert after == [0, 0, 1, 1]


def test_large_tensors_come_in_large_pages():
    assert os.environ["THP_MEM_ALLOC_ENABLE"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak")
def test_the_peak_is_what_was_taken_inside_and_given_back():
    with mmap(-1, 30 * 2**20) as before:
        before[::4096] = bytes(len(before) // 4096)
        with PeakMemory() as peak:
            for megabytes in (20, 60, 10):
                with mmap(-1, megabytes * 2**20) as taken:  # which the C library does not keep for later
                    taken[::4096] = bytes(len(taken) // 4096)
    assert peak.bytes == pytest.approx(60 * 2**20, rel=0.1)


def test_a_peak_that_nobody_tells_is_none(monkeypatch):
    def absent(*_):
        raise OSError

    monkeypatch.setattr("pathlib.Path.write_text", absent)
    with PeakMemory() as peak:
        pass
    assert peak.bytes is None
