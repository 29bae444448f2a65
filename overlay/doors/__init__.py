"""Ways to query this node from outside: HTTP, and the services that use it.  The answers come from overlay.answers."""
