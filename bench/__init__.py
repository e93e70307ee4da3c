"""Times this project side by side with what one would use in its place; see docs/bench.md."""
