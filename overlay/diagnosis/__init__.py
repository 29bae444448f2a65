"""What may be wrong with a node: findings with remedies, shown by `overlay doctor`, and as notes by `up` and `status`.

Each check is a function in a file of its own, which takes what is known of the host and yields findings; `registry` has
them all, and `kinds` has what each finding means.  A check asks and computes: it changes nothing.
"""
