"""Tokens out: access tokens for other APIs on behalf of the caller, with MSAL. Knows callers; imports no other room.

This file imports nothing: MSAL is loaded only by a store that needs it.
"""
