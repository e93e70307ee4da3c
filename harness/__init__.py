"""What the demo, the end-to-end tests and the benchmarks share: a stack driven by the Pulumi CLI, and its traffic."""
