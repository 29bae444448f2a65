"""What the processor can do."""

from __future__ import annotations

from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
# For AES-GCM: x86 calls the two instructions aes and pclmulqdq, ARM aes and pmull.
_AES_GCM = ({"aes", "pclmulqdq"}, {"aes", "pmull"})


def has_aes(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether AES-GCM runs in hardware; False if that cannot be determined."""
    try:
        text = cpu_info.read_text()
    except OSError:
        return False
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            flags = set(value.split())
            return any(needed <= flags for needed in _AES_GCM)
    return False
