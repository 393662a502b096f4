"""Other servers with the per-frame network, and their clients, each in an environment of its own without flowseg."""
