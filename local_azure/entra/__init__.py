"""The Entra ID stand-in: metadata, signing keys, sign-in, tokens, on-behalf-of."""

from local_azure.entra.service import Entra

__all__ = ["Entra"]
