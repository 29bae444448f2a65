"""The parts of scripts/mutate, which makes small changes to the code, and sees whether the tests notice them."""
