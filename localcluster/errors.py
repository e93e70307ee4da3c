"""The one kind of error that a user of the local cluster is meant to see."""


class ClusterError(Exception):
    """Something the user can act on, said in one line; the command line ends with code 2 on it."""
