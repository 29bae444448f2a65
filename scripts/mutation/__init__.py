"""What scripts/mutate does: make small changes of the code, and see whether the tests notice them."""
