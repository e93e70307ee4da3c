"""The Pulumi program, run or driven: by the CLI, in this process, or by a recorder without an engine."""
