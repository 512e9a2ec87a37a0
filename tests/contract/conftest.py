"""The same server as in tests/app."""

from tests.app.conftest import app, hands, http, requests, settings

__all__ = ["app", "hands", "http", "requests", "settings"]
