"""`mesh status`: who is declared to get how many requests, who gets them by the callers' proxies, and how they fare."""
