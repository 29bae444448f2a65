"""``overlay --version``: what every bug report needs."""

# ruff: noqa: PLC0415  see overlay/cli/__init__.py

from __future__ import annotations

import re

import click

# Specification
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")  # PEP 508: a requirement begins with the name of the package


def show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the versions of the installed package and of what it runs on, and exit."""
    if not value or ctx.resilient_parsing:
        return
    click.echo("\n".join(describe_versions()))
    ctx.exit()


def describe_versions() -> list[str]:
    """Return a line with the version of each of this package, Python, the kernel and the required packages."""
    import platform
    from importlib import metadata

    from overlay.forwarding import native

    try:
        own, required = metadata.version("overlay"), metadata.requires("overlay") or []
    except metadata.PackageNotFoundError:
        own, required = "from a source tree, not installed", []
    names = [match[0] for each in required if (match := REQUIREMENT.match(each)) and ";" not in each]
    lines = [
        f"overlay {own}",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"{platform.system()} {platform.release()} {platform.machine()}",
    ]
    for name in names:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} is not installed")
    lines.append(f"packet path {native.describe()}")
    if native.core is not None:
        from overlay.forwarding.native.aes import choose_aes

        lines.append(f"AES of bulk units by {choose_aes(native.core)}")
    return lines
