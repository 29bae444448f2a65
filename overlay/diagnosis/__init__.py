"""Problems of a node: findings with remedies, shown by `overlay doctor`, and as notes by `up` and `status`.

Each check is a function in a file of its own, which takes the facts about the host and yields findings; `registry` has
them all, and `kinds` defines each kind of finding.  A check asks and computes: it changes nothing.
"""
