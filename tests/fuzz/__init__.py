"""Fuzzing: every parser of external input is fed arbitrary bytes here.

- ``targets`` has a function for each parser, and for whole nodes in memory;
- ``target`` says what such a function is, and finds its corpus in ``tests/corpus``;
- ``native`` and ``both`` feed the compiled packet path, and ``leaks`` looks for what it keeps;
- ``__main__`` is ``scripts/fuzz``; ``worker`` is the process that it starts for each target.

tests/test_fuzz.py runs every target over its seeds and its corpus, without the fuzzer.
"""
