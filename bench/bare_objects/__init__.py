"""The least that a Pulumi program with many objects can be: each as it stands in a list."""
