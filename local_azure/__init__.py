"""Loopback stand-ins for Entra ID, Microsoft Graph, ACS Identity and Cosmos DB that speak the real protocols.

For development and tests only: they bind to loopback, hold well-known credentials and trust everybody.
"""
