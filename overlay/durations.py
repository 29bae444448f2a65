"""Durations as text for people."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return *seconds* in its two largest units: ``12 s``, ``2 min 5 s``, ``3 h 12 min``, ``4 d 1 h``."""
    whole = max(0, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    for large, unit, small, small_unit in (
        (days, "d", hour, "h"),
        (hours, "h", minute, "min"),
        (minutes, "min", second, "s"),
    ):
        if large:
            return f"{large} {unit} {small} {small_unit}" if small else f"{large} {unit}"
    return f"{second} s"
