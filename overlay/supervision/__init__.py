"""The forwarder as seen by the agent, which starts, informs, queries, polices and replaces it."""
