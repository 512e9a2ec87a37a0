"""What the server's processes log: their own lines, and of the libraries' only what is wrong.

No line at INFO holds a prompt, a URL or a key.
"""

import logging

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

TALKATIVE = ("httpx", "httpx2", "httpcore", "huggingface_hub", "rq", "PIL")
"""At INFO the HTTP clients write each URL, with the signatures in it."""


def start_logging() -> None:
    """Once in a process, before anything is logged."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
