"""`python -m robnet_fx` is the command `robnet-fx`."""

from robnet_fx.cli.main import main

main()
