"""The typed client of the service."""

from isthmus.client.answers import Consent, Consents, Event, Item, Judged, Listed, Lists, Place, Reason, Receipt, Wishes
from isthmus.client.client import Client, ServiceError
from isthmus.client.rollout import Rollout

__all__ = [
    "Client",
    "Consent",
    "Consents",
    "Event",
    "Item",
    "Judged",
    "Listed",
    "Lists",
    "Place",
    "Reason",
    "Receipt",
    "Rollout",
    "ServiceError",
    "Wishes",
]
