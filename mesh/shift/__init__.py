"""`mesh shift`: new weights by steps, in the file and at every proxy."""
