"""`python -m app` is `zturbo`: how `serve` starts the parts of this server, whatever is on the PATH."""

from app.cli import main

main()
