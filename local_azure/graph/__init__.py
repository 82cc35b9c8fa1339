"""Microsoft Graph on loopback: users, their open extensions, objects of the directory."""

from local_azure.graph.directory_objects import DirectoryUser, ServicePrincipal
from local_azure.graph.open_extensions import OpenExtension, OpenExtensions
from local_azure.graph.service import Graph

__all__ = ["DirectoryUser", "Graph", "OpenExtension", "OpenExtensions", "ServicePrincipal"]
