"""The routes, a module for each resource. Each calls one method of the service and writes the answer."""
