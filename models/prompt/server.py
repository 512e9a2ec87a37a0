"""Magic Prompt by an OpenAI-compatible server (`prompt_llm_url`), asked by a worker that holds no GPU."""

import httpx

from models.config import ModelSettings
from models.prompt.expansion import MAX_NEW_TOKENS, TEMPERATURE, TOP_P, Expansion, declined, judge, messages

TIMEOUT = httpx.Timeout(60, connect=5)
"""Seconds; 300 tokens take a small model on a CPU about half a minute."""

SEED_RANGE = 2**31
"""Servers read the seed into integers of different sizes; this much they all take."""


def expand_by_server(settings: ModelSettings, prompt: str, seed: int) -> Expansion:
    """Have the server at `settings.prompt_llm_url` rewrite `prompt`; what goes wrong becomes a warning."""
    request = {
        "model": settings.prompt_llm_model,
        "messages": messages(prompt),
        "max_tokens": MAX_NEW_TOKENS,
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
        "seed": seed % SEED_RANGE,
    }
    key = settings.prompt_llm_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    url = f"{str(settings.prompt_llm_url).rstrip('/')}/chat/completions"
    try:
        response = httpx.post(url, json=request, headers=headers, timeout=TIMEOUT)
        response.raise_for_status()
        choice = response.json()["choices"][0]
        return judge(prompt, choice["message"]["content"] or "", finished=choice["finish_reason"] == "stop")
    except httpx.TimeoutException:
        return declined("the server that rewrites prompts did not answer in time")
    except httpx.HTTPStatusError as fault:
        return declined(f"the server that rewrites prompts answered {fault.response.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL):
        return declined("the server that rewrites prompts cannot be reached")
    except (ValueError, KeyError, IndexError, TypeError):
        return declined("the server that rewrites prompts gave no answer that can be read")
