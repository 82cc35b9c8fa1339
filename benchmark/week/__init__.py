"""`python -m benchmark.week`: a week of ten million users against the limits of ACS, Graph and Cosmos DB, simulated."""
