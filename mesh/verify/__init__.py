"""`mesh verify`: whether requests are split as declared, by sending some and counting who gets them."""
