"""The checks, each against a real server on the loopback interface."""
