"""The metrics of this node: families.py is the registry, the other files fill its families."""
