"""Problems of single peers: what is noticed, and the sentences that lead to the remedy."""
