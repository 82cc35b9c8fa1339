"""The stores and the ACS client as operators' commands use them: patiently, and as the application."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tenacity.wait import wait_random_exponential

from quart_app.acs.absence import ProvingAcsClient
from quart_app.acs.opening import open_acs_client
from quart_app.credentials import AzureCredential, acs_asks_identity, store_asks_identity
from quart_app.operations.sign_in import chosen, graph_refusal, open_sign_in
from quart_app.settings import Settings, StorageBackend
from quart_app.stores import ActingAs, open_application_tokens, open_graph_extensions, open_with_warnings
from storage.guarded import GuardedStore
from upstream.retrying import RetryPolicy

if TYPE_CHECKING:
    from storage.graph import GraphMappingStore
    from storage.graph_options import GraphApplicationTokens

PATIENT = RetryPolicy(attempts=12, back_off=wait_random_exponential(multiplier=0.2, max=20.0))
"""Nobody waits for an answer: a throttled upstream is given all the time it asks for."""


@asynccontextmanager
async def open_operator_store(
    settings: Settings, backend: StorageBackend, retry: RetryPolicy = PATIENT
) -> AsyncIterator[GuardedStore]:
    """The store `backend`, with its own group of settings.

    Raises `StoreError`, `ManagedIdentityError`, `SignInError`, and with Graph `OnBehalfOfError`.
    """
    async with open_operator_store_with_warnings(settings, backend, retry) as (store, _):
        yield store


@asynccontextmanager
async def open_operator_store_with_warnings(
    settings: Settings, backend: StorageBackend, retry: RetryPolicy = PATIENT
) -> AsyncIterator[tuple[GuardedStore, tuple[str, ...]]]:
    """As `open_operator_store`, with what opening found out about the set-up: each a fault and its remedy."""
    async with (
        _store_credential(settings, backend, retry) as credential,
        open_with_warnings(
            settings, retry, backend=backend, acting_as=ActingAs.APPLICATION, credential=credential
        ) as opened,
    ):
        yield opened


@asynccontextmanager
async def open_operator_extensions(
    settings: Settings, retry: RetryPolicy = PATIENT
) -> "AsyncIterator[GraphMappingStore]":
    """What Microsoft Graph stores, for `seal`. Raises as `open_operator_store`."""
    async with (
        _store_credential(settings, StorageBackend.GRAPH, retry) as credential,
        open_graph_extensions(settings, retry, credential) as extensions,
    ):
        yield extensions


@asynccontextmanager
async def open_operator_tokens(
    settings: Settings, retry: RetryPolicy = PATIENT
) -> "AsyncIterator[GraphApplicationTokens]":
    """App-only tokens for Microsoft Graph, whichever store is used. Raises `SignInError`."""
    async with (
        _store_credential(settings, StorageBackend.GRAPH, retry) as credential,
        open_application_tokens(settings, retry, credential) as tokens,
    ):
        yield tokens


@asynccontextmanager
async def open_operator_acs(
    settings: Settings, retry: RetryPolicy = PATIENT, *, canaries: bool = True
) -> AsyncIterator[ProvingAcsClient]:
    """The client of the configured ACS resource; tokens that it issues have the least scope and the shortest life.

    Raises `SignInError`.
    """
    async with (
        _credential(settings, retry, needed=acs_asks_identity(settings)) as credential,
        open_acs_client(settings.acs, retry, credential, probing=True, canaries=canaries) as acs,
    ):
        yield acs


@asynccontextmanager
async def _store_credential(
    settings: Settings, backend: StorageBackend, retry: RetryPolicy
) -> AsyncIterator[AzureCredential | None]:
    needed = store_asks_identity(settings, backend)
    if needed and backend is StorageBackend.GRAPH and (refusal := graph_refusal(chosen(os.environ))) is not None:
        raise refusal
    async with _credential(settings, retry, needed=needed) as credential:
        yield credential


@asynccontextmanager
async def _credential(settings: Settings, retry: RetryPolicy, *, needed: bool) -> AsyncIterator[AzureCredential | None]:
    if not needed:
        yield None
        return
    async with open_sign_in(settings, retry) as credential:
        yield credential
