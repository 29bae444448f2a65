"""What this node measures, in Prometheus' terms: families.py is the registry, the other files fill its families."""
