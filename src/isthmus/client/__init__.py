"""The typed client of the service."""

from isthmus.client.answers import Consent, Consents, Event, Item, Listed, Lists, Place, Receipt
from isthmus.client.client import Client, ServiceError

__all__ = ["Client", "Consent", "Consents", "Event", "Item", "Listed", "Lists", "Place", "Receipt", "ServiceError"]
