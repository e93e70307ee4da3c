"""What talks to a live cluster: the checks before a run, the purge after it, and the measured split."""
