"""Private servers, on loopback and free ports, that the tests talk to: the real programs."""
