"""The command line as a module, as `torchrun -m sae_repro.cli` starts it."""

from sae_repro.cli import main

main()
