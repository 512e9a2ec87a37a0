"""`.env.example` names every setting with what it does and its default.

After a change of the settings: make env-example
"""

import textwrap
from pathlib import Path

from pydantic import SecretStr

from app.config import Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"

HEAD = """\
# Copy to .env: `zturbo`, from the folder where it is started, and docker compose read it.
# Every line is a default; `zturbo doctor` tells which value holds and where it comes from.

# For docker compose alone: gpu, gpus or workers; where Redis is reached; the folder of LoRA files.
# COMPOSE_PROFILES=gpu
# REDIS_BIND=127.0.0.1
# LORA_FOLDER=./loras

# The Hugging Face hub's own variables mean what they mean everywhere.
# HF_TOKEN=
# HF_TOKEN_PATH=
# HF_HOME=
# HF_ENDPOINT=
# HF_HUB_OFFLINE=

# Those of every tool for S3 too, for ZTURBO_STORAGE; they must be in the environment, not only in this file.
# AWS_ENDPOINT_URL=
# AWS_REGION=
# AWS_ACCESS_KEY_ID=
# AWS_SECRET_ACCESS_KEY=

# A secret may be in a file instead: ZTURBO_REDIS_URL_FILE, ZTURBO_PROMPT_LLM_KEY_FILE,
# AWS_ACCESS_KEY_ID_FILE, AWS_SECRET_ACCESS_KEY_FILE, AWS_SESSION_TOKEN_FILE.
"""


def render() -> str:
    blocks = [HEAD]
    for name, field in Settings.model_fields.items():
        comment = textwrap.wrap(
            field.description or "", 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        default = field.default if field.default_factory is None else None
        shown = "" if default is None or isinstance(default, SecretStr) else str(default)
        blocks.append("\n".join([*comment, f"# ZTURBO_{name.upper()}={shown}"]) + "\n")
    return "\n".join(blocks)


def test_env_example_names_every_setting_with_its_default() -> None:
    assert EXAMPLE.read_text() == render(), __doc__


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


if __name__ == "__main__":
    print(render(), end="")
