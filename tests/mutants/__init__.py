"""Hand-made changes, each of which breaks a documented behaviour, and a program that lets the tests find them."""
