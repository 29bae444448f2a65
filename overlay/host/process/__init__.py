"""Processes: what this one may do and uses, programs that it runs, and the service manager that runs it."""
