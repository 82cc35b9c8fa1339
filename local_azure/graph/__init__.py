"""Microsoft Graph's users and open extensions on loopback: `/v1.0/me`, `/v1.0/users` and their extensions."""

from local_azure.graph.open_extensions import OpenExtension, OpenExtensions
from local_azure.graph.service import DirectoryUser, Graph

__all__ = ["DirectoryUser", "Graph", "OpenExtension", "OpenExtensions"]
