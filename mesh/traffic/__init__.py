"""What is known of traffic without asking anybody: proportions, statistics, and the decisions of a shift."""
