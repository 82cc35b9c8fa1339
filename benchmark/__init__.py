"""`make bench`: how fast the service is, and how fast Quart, Hypercorn and one HTTP call let it be. Prints figures."""
