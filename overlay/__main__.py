"""The command ``overlay``, also as ``python -m overlay``."""

# ruff: noqa: PLC0415  what takes long to load is loaded where an interrupt is handled

import errno
import sys

# Ours
FAILED, INTERRUPTED = 1, 130  # as in overlay.cli.exits
# Any call may fail with these, so they are handled here and not wherever a file is opened
SHORTAGES = {
    errno.EMFILE: "this process may not open more files: raise its limit (ulimit -n, LimitNOFILE= of a service)",
    errno.ENFILE: "this host may not open more files: raise fs.file-max, or end the programs that hold so many",
}
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def main() -> None:
    """Run the command line.  Ctrl-C ends it quietly, even while modules are loading."""
    try:
        from overlay import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (OSError, ExceptionGroup) as error:
        sentence = describe(error)
        if sentence is None:
            raise
        sys.stderr.write(f"Error: {sentence}\n")
        sys.exit(FAILED)


def describe(error: Exception) -> str | None:
    """Return a sentence for a shortage of descriptors, or of room for the output; None for any other *error*.

    Of a group, every error must have a sentence: a shortage may meet several tasks at once.
    """
    if isinstance(error, ExceptionGroup):
        sentences = [describe(each) for each in error.exceptions]
        return None if None in sentences else sentences[0]
    if not isinstance(error, OSError):
        return None
    if error.errno in UNWRITABLE and error.filename is None:  # of output that click prints, such as --help
        return f"the result cannot be written: {error.strerror}"
    return None if error.errno is None else SHORTAGES.get(error.errno)


if __name__ == "__main__":
    main()
