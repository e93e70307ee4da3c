"""What the workflows run; the tests run the same."""
