"""`mesh check`: whether everything is as it has to be, or what is wrong and how to mend it."""
