"""The fault matrix on a cluster: real processes, real brokers, load running, each case judged."""
