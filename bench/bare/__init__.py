"""The least that a Pulumi program can be: one VirtualService, whose weights are in the stack file."""
