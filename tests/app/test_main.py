"""The application as a whole."""

import subprocess
import sys

import httpx
import pytest

from app.config import Settings
from app.errors import ConfigError
from app.main import create_app


def test_importing_the_application_brings_no_torch() -> None:
    code = "import app.main, sys; assert not {'torch', 'diffusers', 'transformers', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_application_is_not_made_for_strangers_without_a_key(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="without a key"):
        create_app(settings.model_copy(update={"host": "192.168.0.7"}))


@pytest.mark.anyio
async def test_front_door_tells_where_to_go_on(http: httpx.AsyncClient) -> None:
    body = (await http.get("/")).json()
    assert body["models"] == "http://localhost:8000/v1/models"
    assert (await http.get(body["openapi"])).status_code == 200
