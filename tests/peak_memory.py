"""The most memory that a process has had (proc(5))."""

from pathlib import Path


def peak_bytes(process_id: int | str = "self") -> int:
    """Return the most that was resident of a process, by default of this one."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    [peak_kib] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak_kib) * 1024


def peak_bytes_from_now() -> int:
    """Forget the most that this process ever had; return what it has."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()
