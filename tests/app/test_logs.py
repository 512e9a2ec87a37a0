"""What the processes log at INFO holds no prompt, no URL and no key."""

import subprocess
import sys

SAYS = """
import logging
from app.logs import start_logging
start_logging()
for name in ("httpx", "httpx2", "httpcore", "huggingface_hub"):
    logging.getLogger(name).info("HTTP Request: GET https://example.com/?signature=secret")
    logging.getLogger(name).warning("something is wrong")
logging.getLogger("worker.life").info("request a failed")
"""


def test_libraries_do_not_log_the_urls_they_fetch() -> None:
    said = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True).stderr
    assert "secret" not in said
    assert said.count("something is wrong") == 4
    assert "INFO worker.life: request a failed" in said
