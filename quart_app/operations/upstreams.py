"""The stores and the ACS client as operators' commands use them: patiently, and as the application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tenacity.wait import wait_random_exponential

from quart_app.acs.absence import ProvingAcsClient
from quart_app.acs.opening import open_acs_client
from quart_app.settings import Settings, StorageBackend
from quart_app.stores import ActingAs, open_mapping_store
from storage.guarded import GuardedStore
from upstream.retrying import RetryPolicy

PATIENT = RetryPolicy(attempts=12, back_off=wait_random_exponential(multiplier=0.2, max=20.0))
"""Nobody waits for an answer: a throttled upstream is given all the time it asks for."""


@asynccontextmanager
async def open_operator_store(
    settings: Settings, backend: StorageBackend, retry: RetryPolicy = PATIENT
) -> AsyncIterator[GuardedStore]:
    """The store `backend`, with its own group of settings. Raises `StoreError`, and with Graph `OnBehalfOfError`."""
    async with open_mapping_store(settings, retry, backend=backend, acting_as=ActingAs.APPLICATION) as store:
        yield store


@asynccontextmanager
async def open_operator_acs(
    settings: Settings, retry: RetryPolicy = PATIENT, *, canaries: bool = True
) -> AsyncIterator[ProvingAcsClient]:
    """The client of the configured ACS resource; tokens that it issues have the least scope and the shortest life."""
    async with open_acs_client(settings.acs, settings.entra, retry, probing=True, canaries=canaries) as acs:
        yield acs
