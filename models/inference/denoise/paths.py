"""The ways to run the blocks: as they are written, or a faster one that was found to give the same."""

from typing import Literal, NamedTuple, Self


class FastPath(NamedTuple):
    """One way; `name` is what results, `/readyz` and metrics call it."""

    name: str
    compiled: bool = False
    """True where torch.compile's code runs the blocks; False runs them as they are written."""
    captured: bool = False
    """True where a denoising step that comes again and again is one CUDA graph."""
    attention: Literal["auto", "cudnn"] = "auto"
    """The attention kernel that PyTorch tries first: cuDNN's, or its own choice."""
    swiglu: bool = False
    """True where the feed-forward's first products, and what comes of the two, are one kernel of our own."""

    def uncaptured(self) -> Self:
        """The same way without CUDA graphs."""
        same = self._replace(captured=False)
        return same._replace(name=next(path.name for path in PATHS if path[1:] == same[1:]))


EAGER = FastPath("eager")
COMPILED = FastPath("compiled", compiled=True)
GRAPHS = FastPath("compiled with graphs", compiled=True, captured=True)

PATHS = (
    EAGER,
    EAGER._replace(name="eager with cuDNN", attention="cudnn"),
    COMPILED,
    GRAPHS,
    COMPILED._replace(name="compiled with cuDNN", attention="cudnn"),
    GRAPHS._replace(name="compiled with graphs and cuDNN", attention="cudnn"),
    COMPILED._replace(name="compiled with SwiGLU", swiglu=True),
    GRAPHS._replace(name="compiled with graphs and SwiGLU", swiglu=True),
    COMPILED._replace(name="compiled with cuDNN and SwiGLU", attention="cudnn", swiglu=True),
    GRAPHS._replace(name="compiled with graphs, cuDNN and SwiGLU", attention="cudnn", swiglu=True),
)
"""All ways, in the order of a trial: those with the same code follow each other."""


def named(name: str) -> FastPath:
    """The path of this name. Raises KeyError."""
    return {path.name: path for path in PATHS}[name]


def candidates(device: str, *, streams: bool, precision: str) -> tuple[FastPath, ...]:
    """What is tried on a device. None on a CPU, where compiling takes minutes of all its cores.

    CUDA graphs have the addresses of weights in them, which a model that `streams` changes in every step.
    The kernel of SwiGLU takes weights in bfloat16 that have no LoRAs beside them.
    """
    if not device.startswith("cuda"):
        return ()
    plain = precision == "bfloat16" and not streams
    return tuple(path for path in PATHS[1:] if not (streams and path.captured) and (plain or not path.swiglu))
