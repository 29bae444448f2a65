"""Processes: the rights and resources of this one, the programs that it runs, and the service manager that runs it."""
