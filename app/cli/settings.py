"""The settings of a command: its flags, else ZTURBO_ variables, else .env, else the defaults."""

from typing import TYPE_CHECKING, Any

from app.cli.exits import Exit, fail

if TYPE_CHECKING:
    from app.config import Settings


def read_settings(**flags: Any) -> "Settings":
    """Flags that are None were not given. A value that no setting takes ends the command with a sentence."""
    from pydantic import ValidationError

    from app.config import Settings

    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = "; ".join(
            f"ZTURBO_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()
        )
        fail(f"These settings cannot be used: {faults}.", Exit.CONFIG)
