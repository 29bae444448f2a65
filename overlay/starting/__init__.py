"""An agent before it has a node: without privileges, without a peers file, or waiting for its network."""
