"""The route of the secret by which a receiver knows that a webhook came from this server."""

from fastapi import APIRouter

from app.auth import Owner
from app.deps import SecretDep
from app.schemas import WebhookSecretBody
from worker.webhooks import signing_key

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.get("/secret")
def get_webhook_secret(owner: Owner, secret: SecretDep) -> WebhookSecretBody:
    """The secret that this key's webhooks are signed with; another key has another."""
    return WebhookSecretBody(secret=signing_key(secret.derive("webhook", owner)))
