"""The ways to run the blocks: as they are written, or a faster one that was found to give the same."""

from typing import Literal, NamedTuple


class FastPath(NamedTuple):
    """One way; `name` is what results, `/readyz` and metrics call it."""

    name: str
    mode: Literal["default", "reduce-overhead"] | None = None
    """The mode that torch.compile is given; None runs the blocks as they are written."""
    attention: Literal["auto", "cudnn"] = "auto"
    """The attention kernel that PyTorch tries first: cuDNN's, or its own choice."""


EAGER = FastPath("eager")
COMPILED = FastPath("compiled", "default")
GRAPHS = FastPath("compiled with graphs", "reduce-overhead")

PATHS = (
    EAGER,
    EAGER._replace(name="eager with cuDNN", attention="cudnn"),
    COMPILED,
    COMPILED._replace(name="compiled with cuDNN", attention="cudnn"),
    GRAPHS,
    GRAPHS._replace(name="compiled with graphs and cuDNN", attention="cudnn"),
)


def named(name: str) -> FastPath:
    """The path of this name. Raises KeyError."""
    return {path.name: path for path in PATHS}[name]


def candidates(device: str, *, streams: bool) -> tuple[FastPath, ...]:
    """What is tried on a device. None on a CPU, where compiling takes minutes of all its cores.

    CUDA graphs have the addresses of weights in them, which a model that `streams` changes.
    """
    if not device.startswith("cuda"):
        return ()
    return tuple(path for path in PATHS[1:] if not (streams and path.mode == "reduce-overhead"))
