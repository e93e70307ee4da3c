"""Long series on the embedded cluster, too long for `make test`: `make soak` runs them all.

Each test is one trial, and the trials of one test function are one series, a row in the table at the end. What a trial
counts it adds by the fixture `record_property("requests", 400)`: numbers are summed up in the series' row.
"""
