"""Problems of single peers: their signs, and the sentences that lead to the remedy."""
