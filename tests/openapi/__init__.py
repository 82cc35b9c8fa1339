"""What others make of `/openapi.json`: linters, and generated clients that call the service. `make openapi`."""
