"""What the device at hand computes natively."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

# Tensors of several megabytes in pages of 2 MB instead of 4 kB: a network on a CPU takes a tenth less time. PyTorch
# looks at this when the process makes its first tensor; who sets it decides.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


def native_bf16(device: str | torch.device = "auto") -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware; where it does not, bfloat16 is slower than float32.

    >>> isinstance(native_bf16("cpu"), bool)
    True
    """
    kind = pick_device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; ``auto`` is CUDA, else Apple's MPS, else the CPU."""
    if str(device) != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensor, instead of handing it back and faulting it in again.

    glibc unmaps every freed block of several megabytes at once. A network on a CPU frees one per layer, and mapping
    the next one costs a quarter of the time. Still larger ones go back at once. Elsewhere
    than on glibc this does nothing.

    References:
        mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 128 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 192 * 2**20)


@contextlib.contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Numbers below 1.2e-38 are zero inside a ``with`` block, for this thread and those that start in it.

    A CPU takes a hundred cycles for such a number. GELU makes one, which it drops again, of every feature that lies far
    from zero: a trained ``plksr`` is 1.8 times as fast without them.

    References:
        Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 1, section 10.2.3 (FTZ and DAZ of MXCSR).
    """
    before = bool(torch.tensor(1e-40) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@cache
def start_threads() -> None:
    """Start the threads that PyTorch shares this thread's work with, so that they flush subnormal numbers for good.

    Threads that were started before stay as they are.
    """
    with subnormals_flushed():
        torch.ones(2**20).sqrt_()


class FreedMemory:
    """Hands kept memory back once the process has outgrown its first image by a twentieth.

    Freed blocks that the next image does not quite fit add up over many; handing everything back after each image would
    fault all of it in again.

    References:
        malloc_trim(3).
    """

    def __init__(self) -> None:
        self.first: int | None = None

    def release(self) -> None:
        """Call after every image."""
        with contextlib.suppress(OSError):
            resident = int(Path("/proc/self/statm").read_text().split()[1])
            self.first = self.first or resident
            if resident > 1.05 * self.first:
                hand_back_memory()


def hand_back_memory() -> None:
    """Give freed memory back to the system; elsewhere than on glibc this does nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class PeakMemory:
    """Measures what the process takes at its peak inside a ``with`` block, on top of what it holds before.

    References:
        proc(5), clear_refs and VmHWM.
    """

    def __init__(self) -> None:
        self.bytes: int | None = None
        """The peak; None where the system does not tell it, as only Linux does."""
        self._before: int | None = None

    def __enter__(self) -> "PeakMemory":
        hand_back_memory()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            self.bytes = max(_status("VmHWM") - self._before, 0)


def _status(key: str) -> int:
    """Bytes that the kernel reports of this process under ``key``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
