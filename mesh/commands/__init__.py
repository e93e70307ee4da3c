"""One module a command of `mesh`; each has a `command`."""
