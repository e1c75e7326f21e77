"""What the device at hand computes natively."""

import contextlib
import ctypes

import torch

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
    the next one costs a quarter of the time. Larger blocks, such as whole SR tiles, still go back at once. Elsewhere
    than on glibc this does nothing.

    References:
        mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 64 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 96 * 2**20)


def release_freed_memory() -> None:
    """Hand freed memory back to the system: blocks that were kept for one tile do not add up over many.

    References:
        malloc_trim(3).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
