"""Whole nodes in memory, two or a few of them: stories of three lines, by topic."""
