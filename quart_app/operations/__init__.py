"""What operators do with the service's data and upstreams; free of the command line."""
