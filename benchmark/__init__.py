"""`make bench`: how fast the service is, beside what Quart, Hypercorn and one HTTP call alone allow. Prints figures."""
